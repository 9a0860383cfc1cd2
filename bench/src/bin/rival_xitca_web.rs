//! xitca-web, with one worker and a constant response: somebody else's server, to compare with.

use std::io;

use clap::Parser as _;
use million_rps_bench::constant::ConstantArguments;
use xitca_web::App;
use xitca_web::body::ResponseBody;
use xitca_web::bytes::Bytes;
use xitca_web::handler::handler_service;
use xitca_web::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, WebResponse};
use xitca_web::route::get;

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
        let mut response: WebResponse = WebResponse::new(ResponseBody::from(body.clone()));
        *response.status_mut() = status;
        *response.headers_mut() = fields.clone();
        std::future::ready(response)
    };
    let listener = arguments.listen()?;
    arguments.announce(&listener)?;
    let app = App::new().at("/todos", get(handler_service(answer)));
    app.serve().worker_threads(1).listen(listener)?.run().wait()
}
