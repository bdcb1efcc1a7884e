// SPDX-License-Identifier: MIT

//! Which devices there are, and how a user names one. Reads sysfs only: nothing is opened, so nothing is disturbed.

use std::{
    convert::Infallible,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::error::{Error, Result};

/// How to name a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A device node, e.g. `/dev/mydrv0`: any text with a slash.
    Path(PathBuf),
    /// The N of `/dev/mydrvN`: digits alone, which no label is.
    Index(u32),
    /// The `label` of the device tree: anything else. Letters, digits, `.`, `_` and `-`, a letter first.
    Label(String),
}

impl FromStr for Selector {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        Ok(if text.contains('/') {
            Self::Path(text.into())
        } else if text.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(index) = text.parse()
        {
            // The standard library would take a sign as well.
            Self::Index(index)
        } else {
            Self::Label(text.into())
        })
    }
}

impl From<&str> for Selector {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(selector) => selector,
        }
    }
}

impl From<u32> for Selector {
    fn from(index: u32) -> Self {
        Self::Index(index)
    }
}

impl From<&Path> for Selector {
    fn from(path: &Path) -> Self {
        Self::Path(path.into())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Index(index) => write!(f, "/dev/mydrv{index}"),
            Self::Label(label) => write!(f, "label {label:?}"),
        }
    }
}

impl Selector {
    /// The device node that is meant, which need not exist unless a label is looked up.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: no device has the label. [`Error::Ambiguous`]: more than one has it. [`Error::System`]: sysfs cannot be read.
    pub fn resolve_in(&self, root: &Path) -> Result<PathBuf> {
        match self {
            Self::Path(path) => Ok(path.clone()),
            Self::Index(index) => Ok(root.join(format!("dev/mydrv{index}"))),
            Self::Label(label) => {
                let mut found = discover_in(root)?;
                found.retain(|candidate| candidate.label.as_ref() == Some(label));
                match &mut *found {
                    [] => Err(Error::NotFound {
                        device: self.to_string(),
                    }),
                    [only] => Ok(std::mem::take(&mut only.path)),
                    several => Err(Error::Ambiguous {
                        device: self.to_string(),
                        paths: several.iter().map(|candidate| candidate.path.clone()).collect(),
                    }),
                }
            }
        }
    }
}

/// A device that the kernel shows, opened or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The N of `/dev/mydrvN`.
    pub index: u32,
    /// `/dev/mydrvN`.
    pub path: PathBuf,
    /// Its folder in sysfs: `/sys/class/misc/mydrvN`.
    pub sysfs: PathBuf,
    /// Its node in `/sys/firmware/devicetree/base`, with every link followed.
    pub of_node: Option<PathBuf>,
    /// The node's `label`; `None` where it has none or an empty one.
    pub label: Option<String>,
}

/// The devices that the kernel shows, by index.
///
/// # Errors
///
/// [`Error::System`]: sysfs cannot be read. That it has no such device is no error.
pub fn discover() -> Result<Vec<Candidate>> {
    discover_in(Path::new("/"))
}

/// As [`discover`], with `sys` and `dev` under `root`.
///
/// # Errors
///
/// As [`discover`].
pub fn discover_in(root: &Path) -> Result<Vec<Candidate>> {
    let class = root.join("sys/class/misc");
    let entries = match fs::read_dir(&class) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::System {
                path: class,
                call: "readdir",
                source,
            });
        }
        Ok(entries) => entries,
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let index = name.strip_prefix("mydrv")?.parse::<u32>().ok()?;
            let sysfs = class.join(&name);
            let of_node = fs::canonicalize(sysfs.join("device/of_node")).ok();
            let label = of_node
                .as_ref()
                .and_then(|node| fs::read(node.join("label")).ok())
                .map(|mut bytes| {
                    while bytes.last() == Some(&0) {
                        bytes.pop();
                    }
                    String::from_utf8_lossy(&bytes).into_owned()
                })
                .filter(|label| !label.is_empty());
            Some(Candidate {
                index,
                path: root.join("dev").join(name),
                sysfs,
                of_node,
                label,
            })
        })
        .collect();
    found.sort_by_key(|candidate| candidate.index);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selector_tells_path_index_and_label_apart() {
        assert_eq!(Selector::from("/dev/mydrv3"), Selector::Path("/dev/mydrv3".into()));
        assert_eq!(Selector::from("./node"), Selector::Path("./node".into()));
        assert_eq!(Selector::from("3"), Selector::Index(3));
        assert_eq!(Selector::from("camera"), Selector::Label("camera".into()));
        assert_eq!(Selector::from("3d"), Selector::Label("3d".into()));
        assert_eq!(Selector::from("+3"), Selector::Label("+3".into()));
        assert_eq!(Selector::from("-3"), Selector::Label("-3".into()));
        assert_eq!(Selector::from("٣"), Selector::Label("٣".into()));
        assert_eq!(Selector::from("4294967296"), Selector::Label("4294967296".into()));
        assert_eq!(Selector::from(""), Selector::Label("".into()));
    }

    #[test]
    fn index_is_a_node_under_the_root() {
        assert_eq!(
            Selector::Index(2).resolve_in(Path::new("/x")).unwrap(),
            Path::new("/x/dev/mydrv2")
        );
    }

    /// Devices 0, 1, … with these labels, in a folder that stands in for the system.
    fn system(name: &str, labels: &[Option<&str>]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("mydrv-discover-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (index, label) in labels.iter().enumerate() {
            let device = root.join(format!("sys/class/misc/mydrv{index}/device"));
            fs::create_dir_all(&device).unwrap();
            fs::create_dir_all(root.join(format!("node{index}"))).unwrap();
            std::os::unix::fs::symlink(root.join(format!("node{index}")), device.join("of_node")).unwrap();
            if let Some(label) = label {
                fs::write(root.join(format!("node{index}/label")), format!("{label}\0")).unwrap();
            }
        }
        root
    }

    #[test]
    fn each_name_is_one_device_or_refused() {
        // Every kind of character that the binding allows, at every place where it may stand.
        let longest = "a".repeat(31);
        let labels = ["camera", "camera2", "Camera", "a.b_c-d", "a", "z-", "mydrv1", &longest];
        let mut all: Vec<_> = labels.iter().map(|label| Some(*label)).collect();
        all.extend([None, Some("")]);
        let root = system("names", &all);
        for (index, label) in labels.iter().enumerate() {
            let path = Selector::from(*label).resolve_in(&root).unwrap();
            assert_eq!(path, root.join(format!("dev/mydrv{index}")), "{label}");
            assert_eq!(path, Selector::from(&*index.to_string()).resolve_in(&root).unwrap());
        }
        for none in ["", "cam", "camera3", "CAMERA", "+3", "99999999999", "a.b_c-d\0"] {
            let error = Selector::from(none).resolve_in(&root).unwrap_err();
            assert!(matches!(error, Error::NotFound { .. }), "{none}: {error}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn two_devices_of_one_label_are_told_not_chosen_from() {
        let root = system("twins", &[Some("camera"), Some("other"), Some("camera")]);
        let error = Selector::from("camera").resolve_in(&root).unwrap_err();
        let Error::Ambiguous { paths, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*paths, [root.join("dev/mydrv0"), root.join("dev/mydrv2")]);
        assert!(
            error.to_string().contains("dev/mydrv0, ") && error.to_string().contains("; "),
            "{error}"
        );
        assert!(Selector::from("other").resolve_in(&root).is_ok());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn unknown_label_is_not_found() {
        let error = Selector::from("camera").resolve_in(Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}
