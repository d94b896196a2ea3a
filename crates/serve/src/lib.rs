//! The HTTP server: it passes questions to the stores and writes the answers. No other crate knows HTTP.
//!
//! - **Receives** a source of connections ([`Listener`]), a store that answers
//!   [`adtally_store::questions::Questions`], and the [`Status`](adtally_engine::status::Status) of the process.
//! - **Emits** JSON with a fixed order of fields, metrics as Prometheus or OpenMetrics text, and RFC 9457 problem
//!   documents. A long answer is sent in pieces while it is written.
//! - **Promises** that a request is answered exactly or refused with a reason, never in part (if a connection closes
//!   before the end of an answer, the answer is incomplete); that clients are bounded in connections, time, bytes and
//!   questions ([`Limits`]); and that no log and no metric names an ad, an address or a user.
//! - **Never** counts, caches or changes anything, authenticates clients, or allows other sites to read answers (no
//!   CORS headers). It does not check the `Host` header: anyone who can open a connection may ask. It therefore listens
//!   on loopback unless the operator configures another address.

mod answers;
mod desk;
mod endpoints;
mod limits;
mod listener;
mod metrics;
mod parameters;
mod pieces;
mod problem;
mod query_string;
mod routes;
mod server;
mod stall;
#[cfg(test)]
mod tests;

pub use endpoints::ledger_json;
pub use limits::Limits;
pub use listener::Listener;
pub use server::serve;
