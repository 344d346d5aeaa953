//! Reads the limits.rs files of all crates.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Files with limits whose crate has no limits.rs; only constants are read there.
const OTHERS: [&str; 2] = ["cli/src/client.rs", "coordinator/log/src/config.rs"];

/// One table for each file, in the order of their paths.
pub(crate) fn table(root: &Path) -> String {
    let mut files = Vec::new();
    find(root, &mut files);
    files.extend(OTHERS.map(|other| root.join(other)));
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    let mut text = String::new();
    for file in files {
        let name = file
            .strip_prefix(root)
            .expect("below the root")
            .display()
            .to_string();
        let source = fs::read_to_string(&file).expect("readable");
        let rows = rows(&source, !OTHERS.contains(&name.as_str()));
        assert!(!rows.is_empty(), "{name} holds no limit");
        write!(
            text,
            "`{name}`\n\n| name | default | meaning |\n|---|---|---|\n"
        )
        .expect("a string");
        for (name, value, meaning) in rows {
            writeln!(text, "| `{name}` | {value} | {meaning} |").expect("a string");
        }
        text.push('\n');
    }
    text
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let entry = entry.expect("readable");
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().expect("known").is_dir() {
            // Neither hidden folders nor what was built.
            if !name.starts_with('.') && name != "target" && name != "examples" && name != "bench" {
                find(&entry.path(), files);
            }
        } else if name == "limits.rs" && folder.components().any(|c| c.as_os_str() == "src") {
            files.push(entry.path());
        }
    }
}

/// Name, default and meaning of each constant, and of each field that has a default.
fn rows(source: &str, with_fields: bool) -> Vec<(String, String, String)> {
    let (mut rows, mut fields) = (Vec::new(), Vec::new());
    let (mut docs, mut ended) = (String::new(), false);
    let mut lines = source.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            // Only the first paragraph.
            ended |= doc.trim().is_empty();
            if !ended {
                docs.push(' ');
                docs.push_str(doc.trim());
            }
            continue;
        }
        let meaning = plain(docs.trim());
        (docs, ended) = (String::new(), false);
        if let Some((name, value)) = constant(line, &mut lines) {
            rows.push((name.clone(), shown(&name, &value), meaning));
        } else if !with_fields {
            continue;
        } else if let Some(name) = line.strip_prefix("pub ").and_then(|l| l.split_once(": ")) {
            fields.push((name.0.to_owned(), meaning));
        } else if let Some((name, value)) = line.trim_end_matches(',').split_once(": ")
            && let Some(at) = fields.iter().position(|(field, _)| field == name)
        {
            let (name, meaning) = fields.remove(at);
            rows.push((name.clone(), shown(&name, value), meaning));
        }
    }
    assert!(fields.is_empty(), "fields without a default: {fields:?}");
    rows
}

fn constant<'a>(line: &str, more: &mut impl Iterator<Item = &'a str>) -> Option<(String, String)> {
    let start = line
        .find("const ")
        .filter(|at| *at == 0 || line.starts_with("pub"))?;
    let mut whole = line[start + "const ".len()..].to_owned();
    if whole.starts_with('_') || whole.starts_with("fn ") {
        return None;
    }
    while !whole.ends_with(';') {
        whole.push(' ');
        whole.push_str(more.next()?);
    }
    let (name, rest) = whole.split_once(": ")?;
    let (_, value) = rest.trim_end_matches(';').split_once(" = ")?;
    Some((name.to_owned(), value.to_owned()))
}

/// Documentation without its links.
fn plain(docs: &str) -> String {
    let mut text = String::new();
    let mut rest = docs;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((label, tail)) = after.split_once(']') else {
            break;
        };
        text.push_str(before);
        text.push_str(label);
        rest = match tail.strip_prefix('(').and_then(|tail| tail.split_once(')')) {
            Some((_, tail)) => tail,
            None => tail,
        };
    }
    text.push_str(rest);
    text.replace('|', "\\|")
}

/// A value with its unit.
fn shown(name: &str, value: &str) -> String {
    let inside = |function: &str| {
        value
            .strip_prefix(function)
            .and_then(|v| v.strip_suffix(')'))
    };
    let ms = inside("Duration::from_millis(")
        .and_then(number)
        .or_else(|| {
            inside("Duration::from_secs(")
                .and_then(number)
                .map(|s| s * 1000)
        })
        .or_else(|| name.ends_with("_MS").then(|| number(value)).flatten());
    match (ms, number(value)) {
        (Some(ms), _) => duration(ms),
        (None, Some(n)) if name.to_uppercase().contains("BYTES") => bytes(n),
        (None, Some(n)) => n.to_string(),
        (None, None) => format!("`{value}`"),
    }
}

/// Sums, differences, products and shifts of whole numbers.
fn number(text: &str) -> Option<u64> {
    if let Some((left, right)) = text.rsplit_once(" - ") {
        return number(left)?.checked_sub(number(right)?);
    }
    if let Some((left, right)) = text.rsplit_once(" << ") {
        return number(left)?.checked_shl(u32::try_from(number(right)?).ok()?);
    }
    text.split(" * ")
        .map(|factor| factor.trim().replace('_', "").parse::<u64>().ok())
        .product()
}

fn duration(ms: u64) -> String {
    for (unit, length) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("min", 60_000),
        ("s", 1_000),
    ] {
        if ms >= length && ms.is_multiple_of(length) {
            return format!("{} {unit}", ms / length);
        }
    }
    format!("{ms} ms")
}

fn bytes(count: u64) -> String {
    for (unit, size) in [("MiB", 1024 * 1024), ("KiB", 1024)] {
        if count >= size && count.is_multiple_of(size) {
            return format!("{} {unit}", count / size);
        }
    }
    format!("{count} bytes")
}
