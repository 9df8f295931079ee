//! The pages that a browser is given: a room's page, and the page that says why there is none.
//!
//! Each is one self-contained answer: style and script are written into it from the sources in
//! `page/`, and its Content-Security-Policy names them by their hashes, so that nothing else runs
//! and nothing is fetched from elsewhere. A room's page is the same bytes for all rooms (its script
//! reads the address), so it is built once. What a stranger chose reaches the error page escaped.
//!
//! Who may see which page is not decided here.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use sha2::{Digest, Sha256};

const ROOM_HTML: &str = include_str!("../page/room.html");
const BASE_CSS: &str = include_str!("../page/base.css");
const ROOM_CSS: &str = include_str!("../page/room.css");

/// The script's modules, each after those that it imports from.
const MODULES: [&str; 4] = [
    include_str!("../page/policy.mjs"),
    include_str!("../page/connection.mjs"),
    include_str!("../page/history.mjs"),
    include_str!("../page/room.mjs"),
];

/// Two speech bubbles; in the page itself, because a browser asks for `/favicon.ico` otherwise.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E\
%3Cpath fill='%230b6e6e' d='M6 4h14a4 4 0 0 1 4 4v6a4 4 0 0 1-4 4h-8l-6 5v-5a4 4 0 0 1-4-4V8a4 4 0 0 1 4-4z'/%3E\
%3Cpath fill='%235fc9c3' d='M26 12a4 4 0 0 1 4 4v6a4 4 0 0 1-4 4v4l-5-4h-6a4 4 0 0 1-4-4h9a6 6 0 0 0 6-6z'/%3E%3C/svg%3E";

struct Page {
    html: String,
    policy: String,
}

static ROOM: LazyLock<Page> = LazyLock::new(|| {
    let style = format!("{BASE_CSS}\n{ROOM_CSS}");
    let script = joined(&MODULES);
    let html = ROOM_HTML
        .replace("{{icon}}", ICON)
        .replace("{{style}}", &style)
        .replace("{{script}}", &script);
    // 'self' covers the WebSocket of the page's own host and port as well (CSP level 3).
    let policy = format!(
        "{}; script-src {}; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'",
        policy(&style),
        source_hash(&script),
    );
    Page { html, policy }
});

static ERROR_POLICY: LazyLock<String> = LazyLock::new(|| policy(BASE_CSS));

/// A room's page and the value of the Content-Security-Policy header that belongs to it.
pub(crate) fn room_page() -> (&'static str, &'static str) {
    (&ROOM.html, &ROOM.policy)
}

/// The page for a refused plain GET: the status, a short title, and one line for a person, both in
/// any characters. A line in the form of an error (lower case, no full stop) is written as a
/// sentence. Send the page with [`error_page_policy`].
pub(crate) fn error_page(status: StatusCode, title: &str, detail: &str) -> String {
    let (title, detail, code) = (escaped(title), escaped(&sentence(detail)), status.as_u16());
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title} · Hubbub</title>
<link rel="icon" href="{ICON}">
<style>{BASE_CSS}</style>
</head>
<body>
<main class="card">
<p class="status">{code}</p>
<h1>{title}</h1>
<p>{detail}</p>
</main>
</body>
</html>
"#
    )
}

/// The value of the Content-Security-Policy header for every [`error_page`].
pub(crate) fn error_page_policy() -> &'static str {
    &ERROR_POLICY
}

/// The modules as the text of one inline module: what they import from each other stands in it
/// already. Each `import` is one line (a test sees to it); `export` is legal in any module.
fn joined(modules: &[&str]) -> String {
    let mut script = String::new();
    for line in modules.iter().flat_map(|module| module.lines()) {
        if !line.starts_with("import ") {
            script.push_str(line);
            script.push('\n');
        }
    }
    script
}

/// What both pages are confined to; `style` is the text of the one style element.
fn policy(style: &str) -> String {
    format!(
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         img-src data:; style-src {}",
        source_hash(style)
    )
}

/// The source expression of an inline element: the hash of the text between its tags.
fn source_hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// An error's line as a sentence.
fn sentence(line: &str) -> String {
    let mut letters = line.chars();
    let Some(first) = letters.next() else { return String::new() };
    let stop = if line.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{}{stop}", first.to_uppercase(), letters.as_str())
}

/// `text` as HTML text or the value of a quoted attribute.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(letter),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the only element `tag`, as an HTML parser would take it.
    fn element<'a>(html: &'a str, tag: &str) -> &'a str {
        let opening = html.find(&format!("<{tag}")).unwrap();
        let start = opening + html[opening..].find('>').unwrap() + 1;
        let end = start + html[start..].find(&format!("</{tag}")).unwrap();
        assert_eq!(html.matches(&format!("<{tag}")).count(), 1, "more than one {tag}");
        &html[start..end]
    }

    #[test]
    fn the_policy_names_exactly_the_style_and_script_of_the_page() {
        let (html, policy) = room_page();
        for (directive, tag) in [("style-src", "style"), ("script-src", "script")] {
            let expected = format!("{directive} {}", source_hash(element(html, tag)));
            assert!(policy.split("; ").any(|part| part == expected), "no {expected} in {policy}");
        }
        assert!(!policy.contains("unsafe"));

        let html = error_page(StatusCode::NOT_FOUND, "No such room", "There is none.");
        let expected = format!("style-src {}", source_hash(element(&html, "style")));
        assert!(error_page_policy().ends_with(&expected));
        assert!(!html.contains("<script"));
    }

    #[test]
    fn a_source_hash_is_the_one_of_the_specification() {
        // The example of CSP level 3, section 2.3.1.
        assert_eq!(
            source_hash("alert('Hello, world.');"),
            "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
        );
    }

    #[test]
    fn the_policies_are_header_values() {
        for policy in [room_page().1, error_page_policy()] {
            http::HeaderValue::from_str(policy).unwrap();
        }
    }

    #[test]
    fn the_script_is_one_module_that_imports_nothing() {
        let (html, _) = room_page();
        let script = element(html, "script");
        assert!(!script.contains("from \"./"), "an import takes more than one line");
        assert!(!script.contains("<!--"), "would begin a comment in HTML");
        for source in MODULES.iter().chain([&BASE_CSS, &ROOM_CSS, &ROOM_HTML]) {
            assert!(!source.contains('\r'), "HTML parsers fold CR LF, which changes the hash");
            assert!(source.ends_with('\n'));
        }
        assert!(!html.contains("{{"), "a placeholder was left");
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        let (html, policy) = room_page();
        let error = error_page(StatusCode::NOT_FOUND, "No such room", "There is none.");
        for page in [html, &error] {
            for attribute in [" src=", "@import", "url("] {
                assert!(!page.contains(attribute), "{attribute} in a page");
            }
            assert_eq!(page.matches(" href=").count(), 1, "the icon alone is linked");
        }
        assert!(policy.starts_with("default-src 'none'"));
    }

    #[test]
    fn an_error_becomes_a_sentence() {
        for (line, expected) in [
            ("no such room is declared here", "No such room is declared here."),
            ("There is none.", "There is none."),
            ("ünknown!", "Ünknown!"),
            ("", ""),
        ] {
            assert_eq!(sentence(line), expected);
        }
    }

    #[test]
    fn an_error_page_shows_markup_as_text() {
        let html = error_page(
            StatusCode::NOT_FOUND,
            "</title><script>alert(1)</script>",
            r#"no "room" <img src=x onerror='alert(1)'> & {{style}}"#,
        );
        assert!(!html.contains("<script") && !html.contains("<img"));
        assert!(
            html.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; · Hubbub</title>")
        );
        assert!(html.contains(
            "<p>No &quot;room&quot; &lt;img src=x onerror=&#39;alert(1)&#39;&gt; &amp; {{style}}.</p>"
        ));
        assert!(html.contains(r#"<p class="status">404</p>"#));
    }
}
