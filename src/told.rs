//! How errors are told to people.

/// An error and its causes in one line, the outermost first, each told once.
///
/// Many errors say their cause themselves, because advice follows it: `{:#}` would say it again.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if tells(&text, &cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Whether a text has a cause as a part of its own, and not as a piece of a word.
fn tells(text: &str, cause: &str) -> bool {
    text.match_indices(cause).any(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let after = rest.get(cause.len()..).unwrap_or_default();
        (before.is_empty() || before.ends_with(": "))
            && (after.is_empty() || after.starts_with(['.', ':', ';', ',']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it: {source}. Try again")]
    struct Advised {
        source: std::io::Error,
    }

    #[test]
    fn each_cause_is_told_once() {
        let source = std::io::Error::other("gone");
        let error = anyhow::Error::new(Advised { source }).context("volume data");
        assert_eq!(told(&error), "volume data: cannot read it: gone. Try again");
        let error = anyhow::anyhow!("gone").context("cannot read /srv/gone").context("volume data");
        assert_eq!(told(&error), "volume data: cannot read /srv/gone: gone");
    }
}
