//! What an error of etcd means for a call.

use etcd_client::Error;
use kernel::Bytes;
use node::store::StoreError;
use std::error::Error as _;
use tonic::{Code, ConnectError, Status};

#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing came of it: it can be asked again.
    Unsent,
    /// Perhaps it was done.
    Unknown,
    /// Nothing came of it, and nothing will.
    Refused(StoreError),
    /// The revision that was asked for is gone.
    Compacted,
    /// The lease is.
    Gone,
}

pub fn of(error: &Error) -> Trouble {
    match error {
        Error::GRpcStatus(status) => of_status(status),
        Error::LeaseKeepAliveError(_) => Trouble::Gone,
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
            Trouble::Refused(StoreError::Invalid(format!("etcd: {error}")))
        }
        _ => Trouble::Unknown,
    }
}

fn of_status(status: &Status) -> Trouble {
    let says = |words: &str| status.message().contains(words);
    match status.code() {
        // Said before anything is proposed, for we ask for a leader with each
        // call.
        Code::Unavailable if says("etcdserver: no leader") || is_unconnected(status) => {
            Trouble::Unsent
        }
        Code::ResourceExhausted if says("too many requests") => Trouble::Unsent,
        Code::ResourceExhausted if says("database space exceeded") => {
            Trouble::Refused(StoreError::Full {
                path: "etcd".to_owned(),
                free: Bytes(0),
                need: Bytes(1),
            })
        }
        Code::OutOfRange if says("compacted") => Trouble::Compacted,
        Code::NotFound if says("lease not found") => Trouble::Gone,
        Code::InvalidArgument
        | Code::ResourceExhausted
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => {
            let why = status.message();
            Trouble::Refused(StoreError::Invalid(format!("etcd refused it: {why}")))
        }
        _ => Trouble::Unknown,
    }
}

/// Whether there was no connection by which it could have been sent.
fn is_unconnected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, message: &str) -> Trouble {
        of(&Error::GRpcStatus(Status::new(code, message)))
    }

    #[test]
    fn only_what_was_surely_not_done_is_asked_again() {
        let unsent = status(Code::Unavailable, "etcdserver: no leader");
        assert_eq!(unsent, Trouble::Unsent);
        for message in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: leader changed",
            "transport error",
        ] {
            assert_eq!(status(Code::Unavailable, message), Trouble::Unknown);
        }
        assert_eq!(status(Code::DeadlineExceeded, ""), Trouble::Unknown);
        assert_eq!(status(Code::Cancelled, ""), Trouble::Unknown);
    }

    #[test]
    fn a_full_etcd_is_full_and_a_large_call_is_invalid() {
        let full = status(
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        );
        assert!(matches!(full, Trouble::Refused(StoreError::Full { .. })));
        let large = status(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(matches!(large, Trouble::Refused(StoreError::Invalid(_))));
        let old = status(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        );
        assert_eq!(old, Trouble::Compacted);
    }
}
