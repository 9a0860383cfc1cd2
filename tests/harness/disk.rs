//! A small disk that one test has for itself: a tmpfs in a mount namespace of its own, which nobody else sees.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;

/// A mounted disk. It is gone when this is dropped and no process that has entered it is left.
#[derive(Debug)]
pub struct Disk {
    /// Keeps the namespace while nothing else runs in it.
    keeper: Process,
    namespace: File,
    mount_point: PathBuf,
}

impl Disk {
    /// Mounts a disk of this many bytes on a folder, which is made. Without root's rights, in a user namespace of its own.
    ///
    /// # Panics
    /// When the system does not allow it.
    pub fn new(mount_point: &Path, bytes: u64) -> Disk {
        std::fs::create_dir_all(mount_point).expect("the mount point can be made");
        let target = path_text(mount_point);
        let options = CString::new(format!("size={bytes},mode=0700")).expect("no zero byte");
        let mut command = Command::new("sleep");
        command.arg("86400");
        // SAFETY: plain system calls without arguments.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let maps =
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))];
        let prepare = move || {
            let mut flags = libc::CLONE_NEWNS;
            if user != 0 {
                flags |= libc::CLONE_NEWUSER;
            }
            // SAFETY: a plain system call.
            check(unsafe { libc::unshare(flags) })?;
            if user != 0 {
                for (name, content) in &maps {
                    std::fs::write(Path::new("/proc/self").join(name), content)?;
                }
            }
            // SAFETY: plain system calls with texts that outlive them.
            unsafe {
                let (none, root) = (std::ptr::null(), c"/".as_ptr());
                check(libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
                let tmpfs = c"tmpfs".as_ptr();
                check(libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, options.as_ptr().cast()))
            }
        };
        // SAFETY: the child has one thread, and nothing it does here waits for one of the parent's locks for long: the
        // harness spawns from one thread.
        unsafe {
            command.pre_exec(prepare);
        }
        let keeper = Process::start(command);
        let namespace = File::open(format!("/proc/{}/ns/mnt", keeper.pid())).expect("the keeper runs");
        Disk { keeper, namespace, mount_point: mount_point.to_owned() }
    }

    /// Lets a command see the disk, and run in `folder`.
    pub fn enter(&self, command: &mut Command, folder: &Path) {
        let namespace = self.namespace.try_clone().expect("another descriptor");
        let user = File::open(format!("/proc/{}/ns/user", self.keeper.pid())).expect("the keeper runs");
        let folder = path_text(folder);
        // SAFETY: between fork and exec the closure only makes async-signal-safe system calls.
        unsafe {
            command.pre_exec(move || {
                if libc::geteuid() != 0 {
                    check(libc::setns(user.as_raw_fd(), libc::CLONE_NEWUSER))?;
                }
                check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS))?;
                check(libc::chdir(folder.as_ptr()))
            });
        }
    }

    /// Runs a command beside the disk, which has to succeed: mount, umount.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.mount_point);
        self.enter(&mut command, Path::new("/"));
        let finished = Process::start(command).finish();
        assert!(finished.status.success(), "{program} {arguments:?}: {finished:?}");
    }

    /// Where this process finds what stands at the mount point.
    pub fn path(&self) -> PathBuf {
        let relative = self.mount_point.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.keeper.pid())).join(relative)
    }
}

fn path_text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zero byte")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
