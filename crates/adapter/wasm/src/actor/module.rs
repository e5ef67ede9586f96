//! Decides whether a core module can be an actor, and prepares it.
//!
//! In: a module as it was written. Out: the same with each mutable global
//! exported and its start function as an export, so that a checkpoint holds all
//! its state and waking it runs nothing.
//! Holds: what passes has no state but its memory and its mutable globals.

use super::error::ActorModuleError;
use kernel::Hash;
use wasm_encoder::{CustomSection, ExportKind, ExportSection, RawSection, SectionId};
use wasmparser::{
    ExternalKind, FunctionBody, KnownCustom, Operator, Parser, Payload, ValType, Validator,
    WasmFeatures,
};

/// Before the name of each export that is added.
const OURS: &str = "homeostat:";
pub(super) const START: &str = "homeostat:start";

pub(super) fn global(index: usize) -> String {
    format!("homeostat:global:{index}")
}

/// Deterministic, and without state outside memory and globals: no threads, no
/// garbage-collected references, one memory of 32 bits.
fn features() -> WasmFeatures {
    WasmFeatures::WASM1
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::SIMD
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::TAIL_CALL
}

pub(super) struct Checked {
    /// The prepared module.
    pub bytes: Vec<u8>,
    /// Of the module as it was written.
    pub hash: Hash,
    /// How many globals are exported as [`global`] names them.
    pub globals: usize,
}

pub(super) fn check(module: &[u8]) -> Result<Checked, ActorModuleError> {
    if Parser::is_component(module) {
        return Err(ActorModuleError::Component);
    }
    Validator::new_with_features(features())
        .validate_all(module)
        .map_err(|error| invalid(&error))?;
    let found = look(module).map_err(|error| match error {
        Found::Refused(error) => error,
        Found::Broken(error) => invalid(&error),
    })?;
    let bytes = prepare(module, &found).map_err(|error| invalid(&error))?;
    Ok(Checked {
        bytes,
        hash: Hash(*blake3::hash(module).as_bytes()),
        globals: found.globals.len(),
    })
}

fn invalid(error: &wasmparser::BinaryReaderError) -> ActorModuleError {
    ActorModuleError::Invalid(error.to_string())
}

enum Found {
    Refused(ActorModuleError),
    Broken(wasmparser::BinaryReaderError),
}

impl From<wasmparser::BinaryReaderError> for Found {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Broken(error)
    }
}

#[derive(Default)]
struct Look {
    /// Indices of the mutable ones.
    globals: Vec<u32>,
    start: Option<u32>,
    functions: u32,
}

fn look(module: &[u8]) -> Result<Look, Found> {
    let mut look = Look::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    look.import(&import?)?;
                }
            }
            Payload::GlobalSection(globals) => {
                for (index, global) in (0..).zip(globals) {
                    look.global(index, &global?)?;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let name = export?.name;
                    if name.starts_with(OURS) {
                        let why = format!("it exports `{name}`, a name that the host gives");
                        return Err(Found::Refused(ActorModuleError::Invalid(why)));
                    }
                }
            }
            Payload::StartSection { func, .. } => look.start = Some(func),
            Payload::CodeSectionEntry(body) => look.code(&body)?,
            _ => {}
        }
    }
    Ok(look)
}

impl Look {
    fn import(&mut self, import: &wasmparser::Import) -> Result<(), Found> {
        if matches!(import.ty, wasmparser::TypeRef::Func(_)) {
            self.functions += 1;
            return Ok(());
        }
        let import = format!("{}.{}", import.module, import.name);
        Err(Found::Refused(ActorModuleError::Import {
            import,
            nearest: None,
        }))
    }

    fn global(&mut self, index: u32, global: &wasmparser::Global) -> Result<(), Found> {
        if !global.ty.mutable {
            return Ok(());
        }
        if matches!(global.ty.content_type, ValType::Ref(_)) {
            return Err(Found::Refused(ActorModuleError::Reference(index)));
        }
        self.globals.push(index);
        Ok(())
    }

    fn code(&mut self, body: &FunctionBody) -> Result<(), Found> {
        let function = self.functions;
        self.functions += 1;
        for operator in body.get_operators_reader()? {
            let instruction = match operator? {
                Operator::TableSet { .. } => "table.set",
                Operator::TableGrow { .. } => "table.grow",
                Operator::TableFill { .. } => "table.fill",
                Operator::TableCopy { .. } => "table.copy",
                Operator::TableInit { .. } => "table.init",
                Operator::ElemDrop { .. } => "elem.drop",
                Operator::DataDrop { .. } => "data.drop",
                _ => continue,
            };
            return Err(Found::Refused(ActorModuleError::Instruction {
                function,
                instruction,
            }));
        }
        Ok(())
    }
}

/// Custom sections go but for the names, which traps are told with.
fn prepare(module: &[u8], found: &Look) -> wasmparser::Result<Vec<u8>> {
    let mut out = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        match &payload {
            Payload::ExportSection(exports) => {
                let mut section = ExportSection::new();
                for export in exports.clone() {
                    let export = export?;
                    section.export(export.name, kind(export.kind), export.index);
                }
                for (count, index) in found.globals.iter().enumerate() {
                    section.export(&global(count), ExportKind::Global, *index);
                }
                if let Some(start) = found.start {
                    section.export(START, ExportKind::Func, start);
                }
                out.section(&section);
            }
            Payload::CustomSection(custom) => {
                if matches!(custom.as_known(), KnownCustom::Name(_)) {
                    out.section(&CustomSection {
                        name: custom.name().into(),
                        data: custom.data().into(),
                    });
                }
            }
            Payload::StartSection { .. } => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    debug_assert_ne!(id, SectionId::Custom as u8);
                    let data = &module[range];
                    out.section(&RawSection { id, data });
                }
            }
        }
    }
    Ok(out.finish())
}

fn kind(kind: ExternalKind) -> ExportKind {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
        ExternalKind::Table => ExportKind::Table,
        ExternalKind::Memory => ExportKind::Memory,
        ExternalKind::Global => ExportKind::Global,
        ExternalKind::Tag => ExportKind::Tag,
    }
}
