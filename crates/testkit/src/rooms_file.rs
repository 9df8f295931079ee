//! The file of rooms that a gateway is started with, in a directory of the test's own.

use std::{
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// What a room needs to be open to programs that send as fast as they can.
pub const OPEN: &str = "allowedOrigins: ['*'], requireOrigin: false, \
     limits: {messagesPerSecond: 1000000, burst: 1000000, maxMessageBytes: 65536, sendQueue: 4096}";

/// A `ChatRoom` document for `demo/{name}`; `spec` is the inside of a YAML flow mapping.
#[must_use]
pub fn chat_room(name: &str, spec: &str) -> String {
    document(name, &format!("{{{spec}}}"))
}

fn document(name: &str, spec: &str) -> String {
    let mut text = String::from("apiVersion: hubbub.dev/v1alpha1\nkind: ChatRoom\n");
    write!(text, "metadata: {{name: {name}, namespace: demo}}\nspec: {spec}\n---\n")
        .expect("a string can be written");
    text
}

fn documents(rooms: &[(&str, &str)]) -> String {
    rooms.iter().map(|(name, spec)| document(name, spec)).collect()
}

/// See the module. Dropped, the directory is removed.
#[derive(Debug)]
pub struct RoomsFile {
    directory: TempDir,
}

impl RoomsFile {
    /// A file with rooms of the namespace `demo`: the name of each, and its `spec` in one line of YAML, such as
    /// `{allowedOrigins: ["https://app.example.com"]}`.
    ///
    /// # Panics
    ///
    /// When no directory can be made.
    #[must_use]
    pub fn new(rooms: &[(&str, &str)]) -> Self {
        Self::of_text(&documents(rooms))
    }

    /// A file with this text.
    ///
    /// # Panics
    ///
    /// As [`RoomsFile::new`].
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the rooms file");
        let file = Self { directory };
        file.overwrite(text);
        file
    }

    /// A file with this one room, `demo/lobby`.
    ///
    /// # Panics
    ///
    /// As [`RoomsFile::new`].
    #[must_use]
    pub fn lobby(spec: &str) -> Self {
        Self::of_text(&chat_room("lobby", spec))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory().join("rooms.yaml")
    }

    /// The directory that it is in, with nothing else.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The flags of a gateway that serves it, and further ones.
    #[must_use]
    pub fn flags(&self, more: &[&str]) -> Vec<OsString> {
        let mut flags = vec![OsString::from("--rooms"), self.path().into_os_string()];
        flags.extend(more.iter().map(OsString::from));
        flags
    }

    /// The arguments that name it to the gateway.
    ///
    /// # Panics
    ///
    /// When the system's temporary directory is not UTF-8.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let path = self.path();
        vec!["--rooms".to_owned(), path.to_str().expect("a path in UTF-8").to_owned()]
    }

    /// Writes other rooms in place, as [`RoomsFile::new`] takes them.
    ///
    /// # Panics
    ///
    /// When the directory is gone.
    pub fn write(&self, rooms: &[(&str, &str)]) {
        self.overwrite(&documents(rooms));
    }

    /// Writes another text in place.
    ///
    /// # Panics
    ///
    /// When the directory is gone.
    pub fn overwrite(&self, text: &str) {
        std::fs::write(self.path(), text).expect("a writable directory");
    }

    /// Puts another file in its place at once, as editors do.
    ///
    /// # Panics
    ///
    /// As [`RoomsFile::overwrite`].
    pub fn replace(&self, text: &str) {
        let next = self.directory().join("rooms.yaml.next");
        std::fs::write(&next, text).expect("a writable directory");
        std::fs::rename(&next, self.path()).expect("a writable directory");
    }
}
