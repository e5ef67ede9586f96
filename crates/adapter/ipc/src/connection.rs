//! Framed Unix sockets which also carry descriptors.
//!
//! In: messages, borrowed descriptors. Out: messages, owned descriptors.
//! Holds: a message's descriptors arrive no later than the message itself.
//! Never: keeps more than [`DESCRIPTORS_MAX`] descriptors of a peer.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use wire::frame::{Decoder, FrameError, encode};

/// More descriptors beside one message are refused.
pub const DESCRIPTORS_MAX: usize = 16;
const READ_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpcError {
    #[error("cannot use the socket {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("another process already answers on {}", path.display())]
    Taken { path: PathBuf },
    #[error("{} exists and is not a socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("{count} descriptors, the limit is {DESCRIPTORS_MAX}")]
    Descriptors { count: usize },
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("a message cannot be used")]
    Frame(#[from] FrameError),
}

#[derive(Debug)]
pub struct SendHalf(Arc<UnixStream>);

impl SendHalf {
    pub async fn send<M: Serialize>(&mut self, message: &M) -> Result<(), IpcError> {
        self.send_with_descriptors(message, &[]).await
    }

    /// After an error, or when dropped half-way, the connection must be closed.
    pub async fn send_with_descriptors<M: Serialize>(
        &mut self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), IpcError> {
        let count = descriptors.len();
        if count > DESCRIPTORS_MAX {
            return Err(IpcError::Descriptors { count });
        }
        let frame = encode(message)?;
        self.send_frames(&frame, descriptors).await
    }

    /// In their order, with as few calls of the system as they fit in.
    pub async fn send_many<M: Serialize>(&mut self, messages: &[M]) -> Result<(), IpcError> {
        let mut frames = Vec::new();
        for message in messages {
            frames.extend(encode(message)?);
        }
        self.send_frames(&frames, &[]).await
    }

    async fn send_frames(
        &mut self,
        frame: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), IpcError> {
        let mut sent = 0;
        while sent < frame.len() {
            // They go with the first byte, so they are there before the last.
            let beside = if sent == 0 { descriptors } else { &[] };
            sent += self
                .0
                .async_io(Interest::WRITABLE, || {
                    let mut space =
                        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if !beside.is_empty() {
                        control.push(SendAncillaryMessage::ScmRights(beside));
                    }
                    let bytes = [IoSlice::new(&frame[sent..])];
                    Ok(sendmsg(
                        &*self.0,
                        &bytes,
                        &mut control,
                        SendFlags::NOSIGNAL,
                    )?)
                })
                .await?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub struct ReceiveHalf {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    descriptors: Vec<OwnedFd>,
    buffer: Vec<u8>,
}

impl ReceiveHalf {
    /// The next message, or `None` once the peer has closed, also
    /// when that cut a message short. Safe to drop
    /// while it waits. Descriptors are only told apart when the peer awaits an
    /// answer before it sends the next message.
    pub async fn receive<M: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<(M, Vec<OwnedFd>)>, IpcError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(Some((message, std::mem::take(&mut self.descriptors))));
            }
            self.buffer.resize(READ_BYTES, 0);
            let buffer = &mut self.buffer;
            let stream = &self.stream;
            let descriptors = &mut self.descriptors;
            let (bytes, flags) = stream
                .async_io(Interest::READABLE, || {
                    let mut space =
                        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
                    let mut control = RecvAncillaryBuffer::new(&mut space);
                    let mut into = [IoSliceMut::new(buffer)];
                    let read = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(rights) = message {
                            descriptors.extend(rights);
                        }
                    }
                    Ok((read.bytes, read.flags))
                })
                .await?;
            let count = self.descriptors.len();
            if count > DESCRIPTORS_MAX || flags.contains(ReturnFlags::CTRUNC) {
                return Err(IpcError::Descriptors { count });
            }
            if bytes == 0 {
                return Ok(None);
            }
            self.decoder.push(&self.buffer[..bytes]);
        }
    }
}

#[derive(Debug)]
pub struct Connection {
    sender: SendHalf,
    receiver: ReceiveHalf,
}

impl Connection {
    pub fn new(stream: UnixStream) -> Self {
        let stream = Arc::new(stream);
        Self {
            sender: SendHalf(Arc::clone(&stream)),
            receiver: ReceiveHalf {
                stream,
                decoder: Decoder::default(),
                descriptors: Vec::new(),
                buffer: Vec::new(),
            },
        }
    }

    pub async fn send<M: Serialize>(&mut self, message: &M) -> Result<(), IpcError> {
        self.sender.send(message).await
    }

    pub async fn send_with_descriptors<M: Serialize>(
        &mut self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), IpcError> {
        self.sender
            .send_with_descriptors(message, descriptors)
            .await
    }

    pub async fn receive<M: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<(M, Vec<OwnedFd>)>, IpcError> {
        self.receiver.receive().await
    }

    pub fn into_split(self) -> (SendHalf, ReceiveHalf) {
        (self.sender, self.receiver)
    }
}

pub async fn connect(path: &Path) -> Result<Connection, IpcError> {
    let stream = UnixStream::connect(path).await;
    Ok(Connection::new(
        stream.map_err(|source| socket(path, source))?,
    ))
}

#[derive(Debug)]
pub struct Listener(UnixListener);

impl Listener {
    /// Replaces a socket on which nobody answers. Callers hold their lock file,
    /// so that two of them never find the same stale socket at once.
    pub async fn bind(path: &Path) -> Result<Self, IpcError> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(IpcError::NotASocket { path: path.into() });
            }
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(|source| socket(path, source))?;
                }
                Err(source) => return Err(socket(path, source)),
                Ok(_) => return Err(IpcError::Taken { path: path.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(socket(path, source)),
        }
        Self::at(path).map_err(|source| socket(path, source))
    }

    /// Takes the path over from whoever listens there: new connections come
    /// here, the other keeps those it has. At no moment is the path empty.
    pub fn replace(path: &Path) -> Result<Self, IpcError> {
        let beside = path.with_extension(format!("{}.sock", std::process::id()));
        let at = || {
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = Self::at(&beside)?;
            std::fs::rename(&beside, path)?;
            Ok(listener)
        };
        at().map_err(|source| socket(path, source))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        // The peer check in `accept` covers the moment before this.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// The next connection of our own user or root; others are closed.
    pub async fn accept(&self) -> Result<Connection, IpcError> {
        loop {
            let (stream, _) = self.0.accept().await?;
            let peer = stream.peer_cred()?.uid();
            if peer == 0 || peer == rustix::process::geteuid().as_raw() {
                return Ok(Connection::new(stream));
            }
        }
    }
}

fn socket(path: &Path, source: io::Error) -> IpcError {
    IpcError::Socket {
        path: path.into(),
        source,
    }
}
