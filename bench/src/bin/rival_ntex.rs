//! ntex on tokio, with one worker and a constant response: somebody else's server, to compare with.

use std::io;

use clap::Parser as _;
use million_rps_bench::constant::ConstantArguments;
use ntex::http::StatusCode;
use ntex::util::Bytes;
use ntex::web::{self, App, HttpResponse};

#[ntex::main]
async fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let constant = arguments.response_parts()?;
    let status = StatusCode::from_u16(constant.status).map_err(io::Error::other)?;
    let (fields, body) = (constant.fields, Bytes::from(constant.body));
    let listener = arguments.listen()?;
    arguments.announce(&listener)?;
    let server = web::server(async move || {
        let (fields, body) = (fields.clone(), body.clone());
        let answer = move || {
            let mut response = HttpResponse::build(status);
            fields.iter().for_each(|(name, value)| {
                response.header(name.as_str(), value.as_str());
            });
            std::future::ready(response.body(body.clone()))
        };
        App::new().route("/todos", web::get().to(answer))
    });
    server.workers(1).listen(listener)?.run().await
}
