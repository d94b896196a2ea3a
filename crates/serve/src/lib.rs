//! The room that knows HTTP: asks stores what clients want to know and words the answers.
//!
//! - **Receives** a source of connections ([`Listener`]), a store that answers [`adtally_store::questions::Questions`], and a
//!   [`Status`](adtally_engine::status::Status) that tells of the process itself.
//! - **Emits** JSON with a fixed order of fields, metrics as Prometheus or OpenMetrics text, and RFC 9457 problem
//!   documents. A long answer is sent in pieces while it is written.
//! - **Promises** that a request is answered exactly or refused with a reason, never in part (a connection that closes
//!   before the end of an answer says that it broke off); that clients are bounded in connections, time, bytes and
//!   questions ([`Limits`]); and that no log or metric names an ad, an address or a user.
//! - **Never** counts, caches or changes anything, authenticates anyone, or lets other sites read answers (no CORS
//!   headers). It does not check the `Host` header either: whoever can open a connection may ask, so it is bound to
//!   loopback unless the operator says otherwise.

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
