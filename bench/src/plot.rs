//! Pages that need nothing else: lines as SVG, and what stands around them.

mod chart;
mod scale;

pub(crate) use chart::{Across, Chart, Series};

use crate::document::Document;

const STYLE: &str = include_str!("plot/page.css");

/// What a page begins with.
pub(crate) struct Page<'a> {
    /// Of the window.
    pub(crate) title: &'a str,
    pub(crate) heading: &'a str,
    /// Below it, before when and by which version.
    pub(crate) facts: &'a [&'a str],
    /// When and how the report was made.
    pub(crate) document: &'a Document,
}

// === impl Page ===

impl Page<'_> {
    /// The whole page.
    ///
    /// - `body`: HTML.
    pub(crate) fn html(&self, body: &str) -> String {
        let (title, head) = (escape(self.title), self.head());
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             {head}{body}</main>\n</body>\n</html>\n"
        )
    }

    fn head(&self) -> String {
        let Document { version, date, command, .. } = self.document;
        let version = format!("Baton {version}");
        let facts = self.facts.iter().copied().chain([date.as_str(), version.as_str()]);
        let facts: Vec<_> = facts.map(escape).collect();
        format!(
            "<header>\n<h1>{}</h1>\n<p>{}</p>\n<p><code>{}</code></p>\n</header>\n",
            escape(self.heading),
            facts.join(" · "),
            escape(command)
        )
    }
}

/// As text of a page: names come from servers and files.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
