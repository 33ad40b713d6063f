//! What chat templates expect of Python: its JSON, its string methods, its clock.

use std::fmt::Write as _;
use std::time::SystemTime;

use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, Utc};
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};

/// Adds what is Python's to the template language.
pub(super) fn add_to(env: &mut Environment<'_>) {
    env.set_unknown_method_callback(methods);
    env.set_formatter(print);
    env.add_filter("tojson", tojson);
    env.add_filter("center", |text: &str, width: Option<usize>| {
        center(text, width.unwrap_or(80), ' ')
    });
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    // Functions and macros are the only plain objects that templates meet.
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// JSON as a template sees it; objects keep their order.
pub(super) fn value_of(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (_, Some(value)) => Value::from(value),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from_iter(items.iter().map(value_of)),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), value_of(value))))
        }
    }
}

/// The widest that text is padded to: templates take widths from requests.
const PAD_MAX: usize = 4096;

/// Of one value as JSON: more than any prompt has.
const JSON_BYTES_MAX: usize = 16 << 20;

/// How `json.dumps` was asked to write.
struct JsonStyle {
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

/// The `tojson` filter as transformers defines it: `json.dumps(value, ensure_ascii, indent,
/// separators, sort_keys)` with `ensure_ascii=False`, and nothing escaped for HTML.
#[expect(clippy::needless_pass_by_value, reason = "a filter's arguments are owned")]
fn tojson(value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let style = JsonStyle::from_kwargs(&kwargs)?;
    kwargs.assert_all_used()?;
    let mut json = String::new();
    write_json(value, &style, 0, &mut json)?;
    Ok(json)
}

/// Python's `datetime.strftime`, in UTC: a server's answers don't depend on where it stands.
pub(super) fn strftime(now: SystemTime, format: &str) -> Result<String, Error> {
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("bad time format {format:?}")));
    }
    Ok(DateTime::<Utc>::from(now).format_with_items(items.into_iter()).to_string())
}

/// Prints a value as Python's `str` does.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_number() && !value.is_integer() {
        out.write_str(&float_repr(f64::try_from(value.clone())?))?;
        return Ok(());
    }
    escape_formatter(out, state, value)
}

/// Python methods that templates use and the template library doesn't have.
fn methods(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, method, args)
    {
        return result;
    }
    if method == "index" && value.kind() == ValueKind::Seq {
        let (wanted,) = from_args::<(&Value,)>(args)?;
        let found = value.try_iter()?.position(|item| item == *wanted);
        let missing = || Error::new(ErrorKind::InvalidOperation, "the value is not in the list");
        return found.map(Value::from).ok_or_else(missing);
    }
    if method == "copy" && matches!(value.kind(), ValueKind::Map | ValueKind::Seq) {
        return Ok(value.clone());
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let split_in = |parts: Option<(&str, &str)>, separator: &str, whole_first: bool| {
        let parts = match parts {
            Some((before, after)) => [before, separator, after],
            None if whole_first => [text, "", ""],
            None => ["", "", text],
        };
        Value::from_iter(parts)
    };
    let one = || from_args::<(&str,)>(args).map(|(argument,)| argument);
    let result = match method {
        "removeprefix" => one().map(|p| Value::from(text.strip_prefix(p).unwrap_or(text))),
        "removesuffix" => one().map(|s| Value::from(text.strip_suffix(s).unwrap_or(text))),
        "partition" => one().map(|s| split_in(text.split_once(s), s, true)),
        "rpartition" => one().map(|s| split_in(text.rsplit_once(s), s, false)),
        "rsplit" => rsplit(text, args),
        "title" => Ok(Value::from(title(text))),
        "index" => one().and_then(|wanted| {
            let at = text.find(wanted).map(|byte| text[..byte].chars().count());
            at.map(Value::from)
                .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))
        }),
        "center" => from_args::<(usize, Option<char>)>(args)
            .map(|(width, fill)| Value::from(center(text, width, fill.unwrap_or(' ')))),
        "zfill" => from_args::<(usize,)>(args).map(|(width,)| Value::from(zfill(text, width))),
        _ => return None,
    };
    Some(result)
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, splits_max) = from_args::<(Option<&str>, Option<i64>)>(args)?;
    let splits_max = splits_max.and_then(|most| usize::try_from(most).ok());
    let pieces_max = splits_max.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(pieces_max, separator).collect(),
        None => text.trim().rsplitn(pieces_max, char::is_whitespace).collect(),
    };
    if separator.is_none() {
        parts.retain(|part| !part.is_empty());
    }
    parts.reverse();
    Ok(Value::from_iter(parts))
}

/// The first letter after anything that is no letter, in upper case; the others in lower case.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        match (character.is_alphabetic(), inside) {
            (true, false) => result.extend(character.to_uppercase()),
            (true, true) => result.extend(character.to_lowercase()),
            (false, _) => result.push(character),
        }
        inside = character.is_alphabetic();
    }
    result
}

fn center(text: &str, width: usize, fill: char) -> String {
    let missing = width.min(PAD_MAX).saturating_sub(text.chars().count());
    // An odd one goes to the left if the width is odd, too.
    let left = missing / 2 + (missing & width & 1);
    let pad = |count| std::iter::repeat_n(fill, count);
    pad(left).chain(text.chars()).chain(pad(missing - left)).collect()
}

fn zfill(text: &str, width: usize) -> String {
    let missing = width.min(PAD_MAX).saturating_sub(text.chars().count());
    let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
    format!("{sign}{}{digits}", "0".repeat(missing))
}

// === impl JsonStyle ===

impl JsonStyle {
    fn from_kwargs(kwargs: &Kwargs) -> Result<Self, Error> {
        let indent: Option<Value> = kwargs.get("indent")?;
        let indent = match indent.filter(|value| !value.is_none()) {
            Some(value) => Some(match value.as_str() {
                Some(text) => text.to_owned(),
                None => " ".repeat(usize::try_from(value)?.min(64)),
            }),
            None => None,
        };
        let default_separator = if indent.is_some() { "," } else { ", " };
        let separators: Option<(String, String)> =
            match kwargs.get::<Option<Value>>("separators")? {
                Some(pair) if !pair.is_none() => {
                    let at = |index| pair.get_item_by_index(index).map(|part| part.to_string());
                    Some((at(0)?, at(1)?))
                }
                _ => None,
            };
        let (item_separator, key_separator) =
            separators.unwrap_or_else(|| (default_separator.into(), ": ".into()));
        Ok(Self {
            indent,
            item_separator,
            key_separator,
            ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
            sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        })
    }

    fn new_line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = &self.indent {
            json.push('\n');
            json.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }
}

fn write_json(
    value: &Value,
    style: &JsonStyle,
    depth: usize,
    json: &mut String,
) -> Result<(), Error> {
    // A list that holds another twice, which holds another twice, takes few steps to make and no end to write.
    if json.len() > JSON_BYTES_MAX {
        let message = format!("more than {JSON_BYTES_MAX} bytes of JSON");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    match value.kind() {
        ValueKind::None => json.push_str("null"),
        ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => json.push_str(&value.to_string()),
        ValueKind::Number => json.push_str(&float_repr(f64::try_from(value.clone())?)),
        ValueKind::String => {
            write_string(value.as_str().unwrap_or_default(), style.ensure_ascii, json);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_items('[', ']', &items, style, depth, json, |item, json| {
                write_json(item, style, depth + 1, json)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            write_items('{', '}', &keys, style, depth, json, |key, json| {
                write_string(&key_text(key), style.ensure_ascii, json);
                json.push_str(&style.key_separator);
                write_json(&value.get_item(key)?, style, depth + 1, json)
            })?;
        }
        other => {
            let message = format!("a value of kind {other} is not JSON serializable");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    Ok(())
}

fn write_items(
    open: char,
    close: char,
    items: &[Value],
    style: &JsonStyle,
    depth: usize,
    json: &mut String,
    mut write: impl FnMut(&Value, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    json.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            json.push_str(&style.item_separator);
        }
        style.new_line(depth + 1, json);
        write(item, json)?;
    }
    if !items.is_empty() {
        style.new_line(depth, json);
    }
    json.push(close);
    Ok(())
}

/// Keys that are no strings become what `json.dumps` makes of them.
fn key_text(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        _ => key.to_string(),
    }
}

fn write_string(text: &str, ensure_ascii: bool, json: &mut String) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            c if (c as u32) < 0x20 || (ensure_ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(json, "\\u{unit:04x}");
                }
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

/// Python's `repr(float)`: the shortest digits that read back as the same number, in scientific
/// notation from 1e16 up and below 1e-4.
fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        let name = if number.is_nan() { "NaN" } else { "Infinity" };
        return format!("{}{name}", if number < 0.0 { "-" } else { "" });
    }
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{number:?}");
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) =
        exponent.strip_prefix('-').map_or(("+", exponent), |positive| ("-", positive));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1.0, "1.0")]
    #[case(0.1, "0.1")]
    #[case(1e16, "1e+16")]
    #[case(123456789012345680.0, "1.2345678901234568e+17")]
    #[case(1e-5, "1e-05")]
    #[case(-2.5e-7, "-2.5e-07")]
    #[case(0.0001, "0.0001")]
    fn floats_are_written_as_python_writes_them(#[case] number: f64, #[case] expected: &str) {
        assert_eq!(float_repr(number), expected);
    }

    #[test]
    fn time_is_formatted_as_python_does() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_721_779_200);
        assert_eq!(strftime(now, "%d %b %Y").unwrap(), "24 Jul 2024");
        assert!(strftime(now, "%!").is_err());
    }
}
