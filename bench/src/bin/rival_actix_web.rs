//! actix-web, with one worker and a constant response: somebody else's server, to compare with.

use std::io;

use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, web};
use clap::Parser as _;
use million_rps_bench::constant::ConstantArguments;

#[actix_web::main]
async fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let constant = arguments.response_parts()?;
    let status = StatusCode::from_u16(constant.status).map_err(io::Error::other)?;
    let (fields, body) = (constant.fields, web::Bytes::from(constant.body));
    let listener = arguments.listen()?;
    arguments.announce(&listener)?;
    let server = HttpServer::new(move || {
        let (fields, body) = (fields.clone(), body.clone());
        let answer = move || {
            let mut response = HttpResponse::build(status);
            fields.iter().for_each(|field| {
                response.append_header((field.0.as_str(), field.1.as_str()));
            });
            std::future::ready(response.body(body.clone()))
        };
        App::new().route("/todos", web::get().to(answer))
    });
    server.workers(1).listen(listener)?.run().await
}
