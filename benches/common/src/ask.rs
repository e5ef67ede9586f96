//! One request of a load, and what its good answer must be.

/// Asked by `GET`; the answer is 200 and says where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub host: String,
    pub path: String,
    /// Of the answer's body.
    pub bytes: usize,
}

impl Ask {
    pub fn new(path: &str, bytes: usize) -> Self {
        Self {
            host: "localhost".to_owned(),
            path: path.to_owned(),
            bytes,
        }
    }

    /// As it is sent.
    pub fn request(&self) -> Vec<u8> {
        let Self { host, path, .. } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
    }
}
