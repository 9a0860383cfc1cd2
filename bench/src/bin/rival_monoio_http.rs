//! monoio-http's own codec in a loop, on one thread, with a constant response: somebody else's code, to compare with.
//! The ring has the flags that the product's has.

use std::io;

use bytes::Bytes;
use clap::Parser as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use million_rps_bench::constant::ConstantArguments;
use monoio::io::Splitable as _;
use monoio::io::sink::SinkExt as _;
use monoio::io::stream::Stream as _;
use monoio::net::{TcpListener, TcpStream};
use monoio_http::common::response::Response;
use monoio_http::h1::codec::decoder::RequestDecoder;
use monoio_http::h1::codec::encoder::GenericEncoder;
use monoio_http::h1::payload::{FixedPayload, Payload};

/// Entries of the ring's submission queue.
const RING_ENTRIES: u32 = 4096;

#[derive(Clone)]
struct Constant {
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
}

fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let response = arguments.response_parts()?;
    let mut fields = HeaderMap::new();
    for (name, value) in &response.fields {
        let name = HeaderName::try_from(name).map_err(io::Error::other)?;
        fields.append(name, HeaderValue::try_from(value).map_err(io::Error::other)?);
    }
    let status = StatusCode::from_u16(response.status).map_err(io::Error::other)?;
    let constant = Constant { status, fields, body: Bytes::from(response.body) };

    let listener = arguments.listen()?;
    let mut ring = io_uring_of_monoio::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().uring_builder(ring).with_entries(RING_ENTRIES);
    builder.build()?.block_on(async {
        arguments.announce(&listener)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(serve(stream, constant.clone()));
        }
    })
}

/// Answers until the connection ends.
async fn serve(stream: TcpStream, constant: Constant) {
    let (read, write) = stream.into_split();
    let mut requests = RequestDecoder::new(read);
    let mut responses = GenericEncoder::new(write);
    while let Some(Ok(_request)) = requests.next().await {
        let payload: Payload = match constant.body.is_empty() {
            true => Payload::None,
            false => Payload::Fixed(FixedPayload::new(constant.body.clone())),
        };
        let mut response = Response::new(payload);
        *response.status_mut() = constant.status;
        *response.headers_mut() = constant.fields.clone();
        if responses.send_and_flush(response).await.is_err() {
            return;
        }
    }
}
