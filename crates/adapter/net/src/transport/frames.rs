//! Heads on streams: one frame in, one frame out.
//!
//! Holds: no more is read than a head's own limit allows, and no longer than
//! the given time; what is refused says why.

use super::link::Fault;
use super::stats::Refused;
use bytes::BytesMut;
use quinn::{ReadExactError, RecvStream};
use std::time::Duration;
use wire::net::frame::{HEADER_BYTES, Head, Header};

pub(crate) async fn read_head(
    recv: &mut RecvStream,
    version: u8,
    within: Duration,
) -> Result<Head, Fault> {
    tokio::time::timeout(within, head(recv, version))
        .await
        .unwrap_or(Err(Fault::Refused(Refused::FrameLate)))
}

async fn head(recv: &mut RecvStream, version: u8) -> Result<Head, Fault> {
    let mut header = [0; HEADER_BYTES];
    recv.read_exact(&mut header).await.map_err(cut)?;
    let header = Header::read(header, version).map_err(|why| Fault::Refused((&why).into()))?;
    let mut content = vec![0; header.bytes];
    recv.read_exact(&mut content).await.map_err(cut)?;
    Head::decode(header, &content).map_err(|why| Fault::Refused((&why).into()))
}

/// The body that a head announced, and the stream's end after it.
pub(crate) async fn read_body(recv: &mut RecvStream, bytes: usize) -> Result<BytesMut, Fault> {
    let mut body = BytesMut::zeroed(bytes);
    recv.read_exact(&mut body).await.map_err(cut)?;
    match recv.read_chunk(1, true).await {
        Ok(None) => Ok(body),
        Ok(Some(_)) => Err(Fault::Refused(Refused::FrameTrailing)),
        Err(_) => Err(Fault::Ended),
    }
}

/// A stream that its sender ended too early breaks the protocol; one that was
/// reset or lost does not.
#[expect(
    clippy::needless_pass_by_value,
    reason = "stands in `map_err`, which gives the error away"
)]
fn cut(error: ReadExactError) -> Fault {
    match error {
        ReadExactError::FinishedEarly(_) => Fault::Refused(Refused::FrameTruncated),
        ReadExactError::ReadError(_) => Fault::Ended,
    }
}
