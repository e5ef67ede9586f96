//! The module's exports: room for a message, a message in, an answer out.
//!
//! Holds: both stay where they are until the next message comes.

use crate::Actor;
use crate::message::{Call, Reply};
use std::cell::RefCell;

thread_local! {
    static IN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Room for a message of `length` bytes, for [`handle`]; zero when there is none.
pub fn alloc(length: u32) -> u32 {
    IN.with_borrow_mut(|room| {
        room.clear();
        let Ok(bytes) = usize::try_from(length) else {
            return 0;
        };
        // Never null, and of a length that the host may write to.
        if room.try_reserve(bytes.max(1)).is_err() {
            return 0;
        }
        room.resize(bytes, 0);
        room.as_ptr() as usize as u32
    })
}

/// Gives the actor what was written into [`alloc`]'s room.
pub fn handle<A: Actor>(actor: &mut A) -> u64 {
    let message = IN.with_borrow_mut(std::mem::take);
    let reply = match Call::read(&message) {
        Some(Call::Request(request)) => actor.handle(request).into_reply(),
        Some(Call::Joined(change)) => {
            actor.joined(change);
            return 0;
        }
        Some(Call::Left(change)) => {
            actor.left(change);
            return 0;
        }
        None => panic!("the host speaks another version"),
    };
    OUT.with_borrow_mut(|out| {
        out.clear();
        Reply::write(&reply, out);
        (out.as_ptr() as usize as u64) << 32 | out.len() as u64
    })
}
