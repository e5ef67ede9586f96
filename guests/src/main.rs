//! Writes the example's components into a folder, each whole or not at all.

use std::error::Error;
use std::path::PathBuf;

const NEWS: [(&str, &[u8]); 2] = [
    ("comments.wasm", guests::COMMENTS),
    ("visitors.wasm", guests::VISITORS),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: guests FOLDER")?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in NEWS {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            continue;
        }
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        std::fs::write(&beside, bytes)?;
        std::fs::rename(&beside, &path)?;
    }
    Ok(())
}
