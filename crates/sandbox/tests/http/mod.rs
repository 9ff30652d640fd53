//! Programs that answer HTTP requests, and programs that ask others.

mod ask;
mod client;
mod drain;
mod http2;
mod limits;
mod peers;
mod serve;
mod site;
mod slow;
