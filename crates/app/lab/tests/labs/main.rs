//! Real labs on this machine, with programs of others in them.

mod gone;
mod loopback;
mod namespaces;
mod support;
