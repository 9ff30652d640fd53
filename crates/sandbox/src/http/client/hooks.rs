//! What wasi:http asks of its host.

use std::sync::Arc;

use http::Request;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::send::Client;

/// The most bytes that are taken from a guest's body at once: they are on the host's heap.
const CHUNK: usize = 64 << 10;

/// The hooks of one instance.
pub(crate) struct Hooks {
    client: Arc<Client>,
}

impl Hooks {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

/// What sending gives: the answer's head with its body to come, and what else must be driven for that.
type Sent = (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let client = Arc::clone(&self.client);
        Box::new(async move {
            let response = client.send(request, &options.unwrap_or_default()).await?;
            // The connection is driven by the client, since it may outlive the request.
            let driven: Box<dyn Future<Output = _> + Send> = Box::new(async { Ok(()) });
            Ok((response, driven))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}
