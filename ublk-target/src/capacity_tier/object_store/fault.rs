//! What a server's errors become: an `io::Error` of a kind that says what to do, with a text that gives away no secret.

use std::io;

use object_store::Error;

/// The longest text that is taken from a server, in bytes.
const MAX_TEXT_BYTES: usize = 400;

/// Texts that must never be shown: keys and tokens of the environment.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Takes what is to be hidden; what is very short is no secret and would garble everything.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.len() >= 4).collect())
    }

    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret, "***");
        }
        // Servers answer with what they were sent; signatures and tokens are no use to a reader.
        if let Some((start, _)) = text.char_indices().nth(MAX_TEXT_BYTES) {
            text.truncate(start);
            text.push_str("...");
        }
        text.replace(['\n', '\r'], " ")
    }

    /// The error as one of I/O.
    pub fn io_error(&self, error: &Error) -> io::Error {
        let kind = match error {
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => io::ErrorKind::AlreadyExists,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        let text = match error {
            // The server's own words are long and say no more.
            Error::NotFound { path, .. } => format!("there is no object {path}"),
            Error::AlreadyExists { path, .. } => format!("there is an object {path} already"),
            error => plain(&error.to_string()),
        };
        io::Error::new(kind, self.hide(&text))
    }
}

/// What the client says of a request that a server refused, without what is of no use to a reader; anything else as it is.
fn plain(text: &str) -> String {
    let refusal = || {
        let (request, answer) = text.split_once(" - Server returned non-2xx status code: ")?;
        let (_, request) = request.rsplit_once("Error performing ")?;
        let mut words = request.split_whitespace();
        let (method, address) = (words.next()?, words.next()?);
        let address = address.split('?').next()?;
        let (status, body) = answer.split_once(": ").unwrap_or((answer, ""));
        // S3's and Azure's answers are of this form; others are told whole.
        let said = match (between(body, "<Code>", "</Code>"), between(body, "<Message>", "</Message>")) {
            (Some(code), Some(message)) => format!("{code}: {}", message.lines().next().unwrap_or_default()),
            (Some(code), None) => code.to_owned(),
            _ => body.trim().to_owned(),
        };
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        Some(format!("the server answers {status} to {method} {address}{said}"))
    };
    refusal().unwrap_or_else(|| text.to_owned())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0.trim())
}

/// Shows nothing of them.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// A request that did not end in its time.
pub fn timed_out(what: &str, seconds: u64) -> io::Error {
    let text = format!("no answer to {what} within {seconds} s; check that the server can be reached");
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_and_why() {
        let client = "Generic S3 error: Error performing list request: Error performing GET \
                      http://host:9000/bucket?list-type=2&prefix=a%2F in 3.6ms, after 2 retries, max_retries: 2, \
                      retry_timeout: 60s  - Server returned non-2xx status code: ";
        let answer = "404 Not Found: <?xml version=\"1.0\"?>\n<Error>\n  <Code>NoSuchBucket</Code>\n  \
                      <Message>The specified bucket does not exist\nRequestId:7</Message></Error>";
        assert_eq!(
            plain(&format!("{client}{answer}")),
            "the server answers 404 Not Found to GET http://host:9000/bucket (NoSuchBucket: The specified bucket does not exist)"
        );
        let other = plain(&format!("{client}502 Bad Gateway: try later"));
        assert_eq!(other, "the server answers 502 Bad Gateway to GET http://host:9000/bucket (try later)");
        let none = plain(&format!("{client}403 Forbidden"));
        assert_eq!(none, "the server answers 403 Forbidden to GET http://host:9000/bucket");
        for odd in ["", "connection refused", " - Server returned non-2xx status code: "] {
            assert_eq!(plain(odd), odd);
        }
    }

    #[test]
    fn secrets_are_not_shown_and_long_answers_are_cut() {
        let secrets = Secrets::new(["hunter22".to_owned(), "".to_owned()]);
        let source = format!("key hunter22 refused\n{}", "x".repeat(5000)).into();
        let error = secrets.io_error(&Error::Generic { store: "S3", source });
        let text = error.to_string();
        assert!(!text.contains("hunter22") && text.contains("***") && text.len() < 500, "{text}");
        assert!(!format!("{secrets:?}").contains("hunter22"));
        let missing = Error::NotFound { path: "a/b".into(), source: "x".into() };
        assert_eq!(secrets.io_error(&missing).kind(), io::ErrorKind::NotFound);
    }
}
