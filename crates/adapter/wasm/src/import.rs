//! Names what a component needs and nothing here provides.

use crate::engine::Host;
use crate::error::WasmError;
use wasmtime::component::Component;

/// What of the wasi world is provided, for whoever imports something else.
const PROVIDED: [&str; 12] = [
    "wasi:cli/environment",
    "wasi:cli/stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:keyvalue/atomics",
    "wasi:keyvalue/batch",
    "wasi:keyvalue/store",
    "wasi:random/random",
];

/// Of two names, from which on one may be meant by the other.
const LIKENESS_MIN: f64 = 0.6;

/// Names the import that nothing here provides.
pub(crate) fn unlinked(host: &Host, component: &Component, error: &wasmtime::Error) -> WasmError {
    let text = format!("{error:#}");
    let kind = component.component_type();
    let missing = kind
        .imports(&host.engine)
        .map(|(import, _)| import)
        .find(|import| text.contains(&format!("`{import}`")));
    let Some(import) = missing else {
        return WasmError::Invalid(text);
    };
    let interface = import.split('@').next().unwrap_or(import);
    let nearest = nearest(interface, PROVIDED);
    WasmError::Import {
        import: import.to_owned(),
        nearest,
    }
}

/// Which of the `known` names was most likely meant, if any.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (strsim::normalized_levenshtein(name, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .map(|(_, known)| known.to_owned())
}
