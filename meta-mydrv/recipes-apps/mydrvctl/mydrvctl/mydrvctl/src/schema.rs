// SPDX-License-Identifier: MIT

//! The schemas of what `--json` prints, in schema/: made of the very types that are printed, and committed, so that whoever reads the output can
//! check it. `MYDRV_WRITE_SCHEMA=1 cargo test schema` writes them anew.

use std::{env, fs, path::Path};

use crate::{commands::documents, failure::Told, validate::Document};

macro_rules! schemas {
    ($($name:literal: $type:ty),* $(,)?) => {
        [$(($name, schemars::generate::SchemaSettings::draft2020_12()
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<$type>(),
            include_str!(concat!("../schema/", $name, ".json")))),*]
    };
}

#[test]
fn schemas_are_those_of_what_is_printed() {
    let schemas = schemas! {
        "bench": documents::Measurements,
        "dma-loop": documents::Loop,
        "dump": documents::Dumped,
        "error": Told,
        "info": documents::Shown,
        "list": documents::List,
        "status": documents::Status,
        "transfer": documents::Transfer,
        "validate": Document,
    };
    for (name, schema, committed) in schemas {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if env::var_os("MYDRV_WRITE_SCHEMA").is_some() {
            fs::write(
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{name}.json")),
                text,
            )
            .unwrap();
        } else {
            assert_eq!(
                text, committed,
                "schema/{name}.json: the layout changed; if only by additions, write it anew, else raise its version"
            );
        }
    }
}
