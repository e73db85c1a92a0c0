//! A disk that is soon full.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::Postgres;

/// A small disk for tables of a [`Postgres`]. Unmounted when it is dropped.
pub(crate) struct SmallDisk {
    /// An empty directory that belongs to the server's user.
    pub(crate) path: PathBuf,
    mount: PathBuf,
}

impl SmallDisk {
    /// `None` where this user may not mount.
    pub(crate) fn mount(server: &Postgres) -> Option<SmallDisk> {
        let data = server.data();
        let mount = data.with_file_name("small-disk");
        fs::create_dir(&mount).ok()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "small-disk"])
            .arg(&mount)
            .output()
            .ok()?;
        if !mounted.status.success() {
            return None;
        }
        let disk = SmallDisk { path: mount.join("tables"), mount };
        fs::create_dir(&disk.path).unwrap();
        let mut chown = Command::new("chown");
        chown.arg(format!("--reference={}", data.display())).args([&disk.mount, &disk.path]);
        assert!(chown.status().unwrap().success());
        Some(disk)
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.mount.join("ballast")).unwrap();
        while file.write_all(&[1; 4_096]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.mount.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while the server has files open there: they go with the server.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is left mounted", self.mount.display());
        }
    }
}
