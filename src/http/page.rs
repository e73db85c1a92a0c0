//! The page: its files as they are in the sources, embedded. Nothing is built and nothing loaded
//! from anywhere else.

/// A file of the page.
pub(super) struct File {
    /// Where it is asked for.
    pub(super) path: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    /// The file itself.
    pub(super) text: &'static str,
}

const fn script(path: &'static str, text: &'static str) -> File {
    File { path, kind: "text/javascript; charset=utf-8", text }
}

/// All of them. The scripts are modules; which does what is told at the head of `page.js`.
pub(super) const FILES: [File; 12] = [
    File { path: "/", kind: "text/html; charset=utf-8", text: include_str!("page.html") },
    File { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("page.css") },
    script("/page.js", include_str!("page.js")),
    script("/page/charts.js", include_str!("page/charts.js")),
    script("/page/dom.js", include_str!("page/dom.js")),
    script("/page/journey.js", include_str!("page/journey.js")),
    script("/page/link.js", include_str!("page/link.js")),
    script("/page/outcomes.js", include_str!("page/outcomes.js")),
    script("/page/partitions.js", include_str!("page/partitions.js")),
    script("/page/summary.js", include_str!("page/summary.js")),
    script("/page/units.js", include_str!("page/units.js")),
    script("/page/workers.js", include_str!("page/workers.js")),
];
