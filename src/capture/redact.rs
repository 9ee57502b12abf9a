// SPDX-License-Identifier: Apache-2.0
//! What no log may hold: the user and the password of a network camera, in the words of a pipeline and in what GStreamer says of it.
//!
//! Rather too much is left out than too little: what stands between `://` and the last `@` of the same word, so that a path with
//! an `@` in it loses its host.

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";
/// How names of properties end, of a URL's parameters and of headers, whose values are secrets: `user-pw`, `proxy-pw`, `passphrase`.
const SECRETS: [&str; 13] = [
    "user-id",
    "user",
    "usr",
    "pw",
    "pwd",
    "pass",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "key",
    "authorization",
];

/// The same text without its secrets.
#[must_use]
pub fn redacted(text: &str) -> String {
    without_values(&without_users(text))
}

/// `rtsp://anna:secret@host/path` becomes `rtsp://***@host/path`.
fn without_users(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let (word, behind) = match before.trim_end_matches(scheme).chars().next_back() {
            Some(quote @ ('"' | '\'')) => after.split_at(end(after, |c| c == quote)),
            Some(_) | None => after.split_at(end(after, char::is_whitespace)),
        };
        match word.rsplit_once('@') {
            Some((_, host)) => out.extend([HIDDEN, "@", host]),
            None => out.push_str(word),
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// `user-pw=secret` becomes `user-pw=***`.
fn without_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        out.push('=');
        rest = after;
        if is_secret(before) {
            out.push_str(HIDDEN);
            rest = behind_value(after);
        }
    }
    out.push_str(rest);
    out
}

/// Whether the last word of `before` names a secret.
fn is_secret(before: &str) -> bool {
    let names = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let name = before.trim_end().rsplit(names).next().unwrap_or_default();
    let name = name.to_ascii_lowercase();
    SECRETS.iter().any(|end| name.ends_with(end))
}

/// What follows a value, which may have blanks and its type before it, and be in quotes.
fn behind_value(text: &str) -> &str {
    let value = text.trim_start();
    let typed = value
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'));
    let value = typed.map_or(value, |(_, value)| value).trim_start();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote) {
            let (_, behind) = inner.split_at(end(inner, |c| c == quote));
            return behind.strip_prefix(quote).unwrap_or(behind);
        }
    }
    value.split_at(end(value, char::is_whitespace)).1
}

/// Where `text` has the first character that ends it. One behind a backslash does not.
fn end(text: &str, ends: impl Fn(char) -> bool) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if !escaped && ends(c) {
            return at;
        }
        escaped = !escaped && c == '\\';
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: &str) {
        assert_eq!(redacted(text), wanted);
    }

    #[test]
    fn user_and_password_of_a_url() {
        check(
            "rtspsrc location=rtsp://anna:s3cret@10.0.0.7:554/a latency=0 ! rtpjpegdepay",
            "rtspsrc location=rtsp://***@10.0.0.7:554/a latency=0 ! rtpjpegdepay",
        );
        check("rtsp://anna@h/a", "rtsp://***@h/a");
        // What a careful person would have written in percent.
        check("rtsp://anna:p@ss/w?rd#1@h/a", "rtsp://***@h/a");
        check(
            "location=rtsp://anna:my\\ dog@h/a !",
            "location=rtsp://***@h/a !",
        );
        check(
            "location=\"rtsp://anna:my \\\" dog@h/a\" ! x",
            "location=\"rtsp://***@h/a\" ! x",
        );
        check("'rtsp://anna:my dog@h' no", "'rtsp://***@h' no");
        check(
            "could not open (rtsp://a:b@h/1), nor http://c:d@h/2.",
            "could not open (rtsp://***@h/1), nor http://***@h/2.",
        );
        check("rtsp://a:b@h,rtsp://c:d@k", "rtsp://***@k");
        check("rtsps+x://ä:ö@h", "rtsps+x://***@h");
        // A quote that nobody closes.
        check("\"rtsp://a:b c@h", "\"rtsp://***@h");
    }

    #[test]
    fn values_of_properties_and_parameters() {
        check(
            "rtspsrc user-id=anna user-pw=s3cret latency=0",
            "rtspsrc user-id=*** user-pw=*** latency=0",
        );
        check("user-pw = \"my dog\" ! x", "user-pw =*** ! x");
        check("user-pw=(string)\"my \\\" dog\" ! x", "user-pw=*** ! x");
        check("PassPhrase='my dog' ! x", "PassPhrase=*** ! x");
        check("password=my\\ dog !", "password=*** !");
        check(
            "srtsrc uri=srt://h:9?mode=caller&passphrase=s3cret latency=1",
            "srtsrc uri=srt://h:9?mode=caller&passphrase=*** latency=1",
        );
        check("user-pw=", "user-pw=***");
        check("user-pw=\"never closed", "user-pw=***");
        check(
            "uri=\"http://h/?token=s3cret\"",
            "uri=\"http://h/?token=***",
        );
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for text in [
            "",
            "videotestsrc is-live=true ! video/x-raw,width=640,height=480 ! identity name=a@b",
            "rtspsrc location=rtsp://10.0.0.7/stream latency=0",
            "filesrc location=/srv/a=b.avi ! avidemux",
            "x264enc key-int-max=30 speed-preset=fast",
            "://",
            "a = b == c",
            "ß=ü",
        ] {
            check(text, text);
        }
    }
}
