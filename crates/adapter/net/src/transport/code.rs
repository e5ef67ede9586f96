//! Why connections and streams are ended, as numbers on the wire.

use quinn::VarInt;

pub(super) const DONE: VarInt = VarInt::from_u32(0);
/// The transport was closed.
pub(super) const LEFT: VarInt = VarInt::from_u32(1);
/// Another connection between the two is preferred; nothing ran on this one.
pub(super) const SUPERSEDED: VarInt = VarInt::from_u32(2);
/// A newer process of the same node came.
pub(super) const REPLACED: VarInt = VarInt::from_u32(3);
/// The node does not belong, or does no longer.
pub(super) const REVOKED: VarInt = VarInt::from_u32(4);
/// The certificate ended.
pub(super) const EXPIRED: VarInt = VarInt::from_u32(5);
pub(super) const PROTOCOL: VarInt = VarInt::from_u32(6);
/// Strangers may join and nothing else.
pub(crate) const STRANGER: VarInt = VarInt::from_u32(7);
/// Too many frames were refused.
pub(super) const PENALTY: VarInt = VarInt::from_u32(8);
/// Of a stream: too many; nothing was done.
pub(crate) const BUSY: VarInt = VarInt::from_u32(9);
/// Of a stream: whoever waited for it went away.
pub(super) const CANCELLED: VarInt = VarInt::from_u32(10);
/// Of a stream: nothing of that number is done here.
pub(super) const UNKNOWN_METHOD: VarInt = VarInt::from_u32(11);

/// The caller has the key of the node that it called.
pub(super) const CLONE: VarInt = VarInt::from_u32(12);

pub(super) fn name(code: VarInt) -> &'static str {
    match code.into_inner() {
        0 => "done",
        1 => "the peer left",
        2 => "superseded",
        3 => "a newer process of the same node came",
        4 => "revoked or not known",
        5 => "the certificate ended",
        6 => "the protocol was broken",
        7 => "strangers may only join",
        8 => "too many refused frames",
        9 => "busy",
        10 => "cancelled",
        11 => "unknown method",
        12 => "another process has this node's key",
        _ => "for a reason unknown here",
    }
}
