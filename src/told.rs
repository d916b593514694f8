//! How errors are told to people.

/// An error and its causes in one line, the outermost first, each told once.
///
/// Many errors say their cause themselves, because advice follows it: `{:#}` would say it again.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
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
        let error = anyhow::anyhow!("gone").context("the tier").context("volume data");
        assert_eq!(told(&error), "volume data: the tier: gone");
    }
}
