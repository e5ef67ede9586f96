//! `docs/openapi.json` is what the code says: `UPDATE=1` writes it anew.

use std::path::Path;
use utoipa::OpenApi;

#[test]
fn the_written_api_is_the_one_in_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/openapi.json");
    let mut made = agent::Document::openapi()
        .to_pretty_json()
        .expect("the document is JSON");
    made.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).expect("writes");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "docs/openapi.json is behind: UPDATE=1 cargo nextest run -p agent"
    );
}
