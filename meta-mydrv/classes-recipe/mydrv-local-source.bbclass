# SPDX-License-Identifier: MIT
# Recipes whose source is in this layer. OE-Core takes the files' time of modification for the packages' date, which is when somebody cloned the
# layer; with a fixed one, packages of two clones are the same bytes.
SOURCE_DATE_EPOCH = "${SOURCE_DATE_EPOCH_FALLBACK}"
