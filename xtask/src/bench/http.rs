//! A minimal HTTP/1.1 client that sends many questions to one server over one connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A persistent connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Client {
    pub(super) fn connect(address: &str) -> Result<Client, String> {
        let failed = |error: std::io::Error| format!("cannot connect to {address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
        Ok(Client { stream: BufReader::new(stream), address: address.to_owned() })
    }

    /// The status and the body of an answer, and the time from the first byte sent to the last byte received.
    pub(super) fn get(&mut self, path: &str) -> Result<(u16, String, Duration), String> {
        let failed = |error: std::io::Error| format!("GET {path}: {error}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let began = clock();
        self.stream.get_mut().write_all(request.as_bytes()).map_err(failed)?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(failed)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| format!("GET {path}: no status in {line:?}"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).map_err(failed)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(|_| format!("GET {path}: {line}"))?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).map_err(failed)?;
        let took = clock() - began;
        Ok((status, String::from_utf8_lossy(&body).into_owned(), took))
    }

    /// The body of an answer, which must be 200, and its time in milliseconds.
    pub(super) fn ask(&mut self, path: &str) -> Result<(String, f64), String> {
        let (status, body, took) = self.get(path)?;
        match status {
            200 => Ok((body, took.as_secs_f64() * 1e3)),
            _ => Err(format!("GET {path}: {status} {body}")),
        }
    }
}

/// The text that follows `"name":` in a flat JSON answer, without its quotes.
pub(super) fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let end = rest.find([',', '}'])?;
    Some(rest[..end].trim_matches('"'))
}

#[expect(clippy::disallowed_methods, reason = "a bench takes place in real time")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_found() {
        let json = r#"{"ad_id":42,"clicks":123,"to":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(super::field(json, "clicks"), Some("123"));
        assert_eq!(super::field(json, "to"), Some("2026-01-01T00:00:00Z"));
        assert_eq!(super::field(json, "from"), None);
    }
}
