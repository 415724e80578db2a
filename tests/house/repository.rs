//! Where the repository's files are, and how to read them.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root: the folder of the `catena` package.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text, or `None` when there is no such file. `path` counts from the root.
pub(crate) fn text(path: &str) -> Option<String> {
    let path = root().join(path);
    match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{} cannot be read: {error}", path.display()),
    }
}

/// Every file below `folder` with this extension, from the root, sorted. A folder
/// that does not exist has none.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&root().join(folder), extension, &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, extension: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder's entry can be read").path();
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            let path = path
                .strip_prefix(root())
                .expect("the walk began at the root");
            found.push(path.to_string_lossy().replace('\\', "/"));
        }
    }
}

/// A manifest, parsed. `path` counts from the root.
pub(crate) fn manifest(path: &str) -> toml::Table {
    let text = text(path).unwrap_or_else(|| panic!("there is no {path}"));
    text.parse()
        .unwrap_or_else(|error| panic!("{path} is not TOML: {error}"))
}
