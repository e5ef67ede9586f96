//! What a person writes (`homeostat.toml`), checked, and the typed objects that
//! come out of it.

mod model;

pub use model::{
    Binding, BindingTarget, CachePolicy, Check, Goals, HostPattern, Limits, Manifest, PathPrefix,
    Probe, ProbeKind, Probes, Route, Run, Service, Site,
};
