//! Whole messages over a stream between nodes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::frame::{Decoder, encode};

const READ_BYTES: usize = 64 << 10;

pub async fn send<M: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &M) -> Result<()> {
    let frame = encode(message).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    stream.write_all(&frame).await?;
    stream.flush().await
}

pub struct Frames<R> {
    stream: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
        }
    }

    /// `None` at the stream's end. Safe to drop before it is done.
    pub async fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>> {
        loop {
            let read = self.decoder.next();
            if let Some(message) =
                read.map_err(|error| Error::new(ErrorKind::InvalidData, error))?
            {
                return Ok(Some(message));
            }
            let mut bytes = vec![0; READ_BYTES];
            let count = self.stream.read(&mut bytes).await?;
            if count == 0 {
                return Ok(None);
            }
            self.decoder.push(&bytes[..count]);
        }
    }
}
