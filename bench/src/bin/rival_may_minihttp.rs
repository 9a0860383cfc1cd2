//! may_minihttp, with one worker and a constant response: somebody else's server, to compare with.

use std::io;

use clap::Parser as _;
use may_minihttp::{HttpService, HttpServiceFactory, Request, Response};
use million_rps_bench::constant::ConstantArguments;

/// What its responses are made of; it wants strings that live as long as the program.
#[derive(Clone, Copy)]
struct Constant {
    status: u16,
    fields: &'static [&'static str],
    body: &'static str,
}

impl HttpService for Constant {
    fn call(&mut self, _request: Request<'_, '_, '_>, response: &mut Response<'_>) -> io::Result<()> {
        if self.status != 200 {
            response.status_code(usize::from(self.status), "Constant");
        }
        for field in self.fields {
            response.header(field);
        }
        response.body(self.body);
        Ok(())
    }
}

impl HttpServiceFactory for Constant {
    type Service = Constant;

    fn new_service(&self, _id: usize) -> Constant {
        *self
    }
}

fn main() -> io::Result<()> {
    let arguments = ConstantArguments::parse();
    let response = arguments.response_parts()?;
    let fields = response.fields.iter().map(|(name, value)| &*format!("{name}: {value}").leak());
    let constant = Constant {
        status: response.status,
        fields: fields.collect::<Vec<&'static str>>().leak(),
        body: String::from_utf8(response.body).map_err(io::Error::other)?.leak(),
    };
    may::config().set_workers(1);
    // It binds by itself and does not tell where: a port that is free now will be free a moment later.
    let listener = arguments.listen()?;
    let address = listener.local_addr()?;
    drop(listener);
    let server = constant.start(address)?;
    arguments.announce_address(address)?;
    server.join().map_err(|_| io::Error::other("the server panicked"))
}
