//! The classic text format of Prometheus (version 0.0.4), made of OpenMetrics text.

/// The media type of [`from_open_metrics`], as requests name it.
pub(crate) const MEDIA_TYPE: &str = "text/plain";

/// The same with its parameters, as answers name it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same metrics in the classic format. There, a family has the name of its samples, units and the type `info` do
/// not exist, and the text has no end marker.
pub(crate) fn from_open_metrics(text: &str) -> String {
    let mut classic = String::with_capacity(text.len() + text.len() / 8);
    let mut help = "";
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // Written with the type, which decides about the name.
            help = described.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            classic.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            classic.push_str(line);
            classic.push('\n');
        }
    }
    classic
}
