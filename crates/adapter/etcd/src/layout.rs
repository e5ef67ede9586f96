//! Where things lie in etcd.
//!
//! Holds: entries and leases never meet, whatever they are called.

/// Names under one root.
#[derive(Clone, Debug)]
pub struct Layout {
    entries: String,
    leases: String,
}

impl Layout {
    pub fn new(root: &str) -> Self {
        Self {
            entries: format!("{root}/k"),
            leases: format!("{root}/l"),
        }
    }

    pub fn entry(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.entries).into_bytes()
    }

    /// The store's key of what lies in etcd; none: it is not ours.
    pub fn key(&self, bytes: &[u8]) -> Option<String> {
        let rest = bytes.strip_prefix(self.entries.as_bytes())?;
        String::from_utf8(rest.to_vec()).ok()
    }

    pub fn lease(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.leases).into_bytes()
    }

    /// All that starts with the prefix: from the first on, before the second.
    pub fn under(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let start = self.entry(prefix);
        let end = after_all(&start);
        (start, end)
    }
}

/// The first after all that start with this.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // To etcd: to the very end. A layout's prefixes are text, and never that.
    vec![0]
}

/// The first after this one.
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_what_does_not_start_with_it() {
        let layout = Layout::new("r");
        let (start, end) = layout.under("/a");
        for inside in ["/a", "/a/", "/a\u{10ffff}\u{10ffff}"] {
            let key = layout.entry(inside);
            assert!(start <= key && key < end, "{inside}");
        }
        for outside in ["/", "/b", "/Z"] {
            let key = layout.entry(outside);
            assert!(key < start || end <= key, "{outside}");
        }
        let (start, end) = layout.under("");
        let lease = layout.lease("x");
        assert!(lease < start || end <= lease);
        assert_eq!(after_all(&[7, 255, 255]), [8]);
        assert_eq!(after_all(&[255]), [0]);
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let layout = Layout::new("r");
        assert_eq!(layout.key(&layout.entry("/a")).as_deref(), Some("/a"));
        assert_eq!(layout.key(&layout.lease("a")), None);
        assert_eq!(layout.key(b"other"), None);
    }
}
