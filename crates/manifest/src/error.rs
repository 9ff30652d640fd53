use std::fmt;

/// What is wrong with a manifest, and where: `pod.yaml, document 2, field "spec.containers[0].image": must be set`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    file: String,
    /// Counts from 1; none where the file has no documents yet.
    document: Option<usize>,
    field: Option<String>,
    cause: String,
}

impl Error {
    /// Something that is wrong with a whole file.
    pub(crate) fn file(file: &str, cause: impl Into<String>) -> Self {
        Self { file: file.to_owned(), document: None, field: None, cause: cause.into() }
    }

    /// Something that is wrong with a document; `document` counts from 1.
    pub fn document(file: &str, document: usize, cause: impl Into<String>) -> Self {
        Self { document: Some(document), ..Self::file(file, cause) }
    }

    /// The same, at a field of the document.
    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Without its place, as one line: what a message says that names the file itself.
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field \"{field}\"")?;
        }
        write!(f, ": {}", self.cause)
    }
}
