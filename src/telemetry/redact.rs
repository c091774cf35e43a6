//! The last net: what looks like credentials in an address never reaches a log, whoever wrote the line.

use std::borrow::Cow;

/// `text` with the part between `://` and `@` of every address replaced.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("://") || !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        // A password may hold any mark: only what cannot be in an address at all ends it.
        let end = after.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(after.len());
        let address = &after[..end];
        match address.rfind('@') {
            Some(at) => {
                out.push_str("***");
                out.push_str(&address[at..]);
            }
            None => out.push_str(address),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_keep_their_hosts_only() {
        assert_eq!(redact("to mongodb://u:p@h:1/?x=1 now"), "to mongodb://***@h:1/?x=1 now");
        assert_eq!(redact("a mongodb+srv://u:p@ss,x)@h, b"), "a mongodb+srv://***@h, b");
        assert_eq!(redact("mongodb://h:1"), "mongodb://h:1");
    }

    proptest! {
        #[test]
        fn no_password_survives(password in r"[a-zA-Z0-9%!$&*+=;:._~,)(<>'-]{8,20}", before in "[ -~]{0,20}") {
            let text = format!("{before} mongodb://user:{password}@host/");
            let clean = redact(&text);
            prop_assert!(!clean.contains(&format!(":{password}@")), "{}", clean);
        }

        #[test]
        fn other_text_is_unchanged(text in "[a-z @]{0,40}") {
            prop_assert_eq!(redact(&text), text.as_str());
        }
    }
}
