//! The store on real etcd members, which these tests start and kill.

mod faults;
mod server;
mod store;
