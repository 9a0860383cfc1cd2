//! axum, on one thread, with a constant response: somebody else's server, to compare with.

use std::io;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use clap::Parser as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use million_rps_bench::constant::ConstantArguments;

fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let constant = arguments.response_parts()?;
    let status = StatusCode::from_u16(constant.status).map_err(io::Error::other)?;
    let mut fields = HeaderMap::new();
    for (name, value) in &constant.fields {
        let name = HeaderName::try_from(name).map_err(io::Error::other)?;
        fields.append(name, HeaderValue::try_from(value).map_err(io::Error::other)?);
    }
    let body = Bytes::from(constant.body);
    let answer = move || {
        let mut response = Response::new(Body::from(body.clone()));
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        std::future::ready(response)
    };
    let app = Router::new().route("/todos", axum::routing::get(answer));

    let listener = arguments.listen()?;
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        arguments.announce(&listener)?;
        axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await
    })
}
