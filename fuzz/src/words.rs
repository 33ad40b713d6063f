//! Inputs that are several things at once: files, headers, messages one after the other.

/// Parts that begin with a line of their own: `=== NAME`.
///
/// What comes before the first such line is the part without a name.
pub fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(text);
    let mut name = "";
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, after) = match text.split_once("\n=== ") {
            Some((part, after)) => (part, Some(after)),
            None => (text, None),
        };
        let this = name;
        rest = after.map(|after| {
            let (line, body) = after.split_once('\n').unwrap_or((after, ""));
            name = line;
            body
        });
        Some((this, part))
    })
}

/// Messages one after the other, each behind two bytes that say how long it is.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (message, rest) = after.split_at(length);
        bytes = rest;
        Some(message)
    })
}

/// The bytes that [`messages`] takes apart.
///
/// # Panics
/// If a message has 64 KiB or more.
pub fn joined(messages: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let with_length = |message: Vec<u8>| {
        let length = u16::try_from(message.len()).expect("a short message");
        [&length.to_le_bytes()[..], &message].concat()
    };
    messages.into_iter().flat_map(with_length).collect()
}
