"""Row 14: files, and all of them as one archive that is made while it is sent."""

import os
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from zipstream import ZipStream

FILES = Path(os.environ.get("FILES_DIR", "files")).resolve()

router = APIRouter()


@router.get("/download/{name}")
@router.head("/download/{name}")
def download(name: str) -> FileResponse:
    """A file, by name."""
    path = FILES / name
    if not path.is_file() or path.resolve().parent != FILES:
        raise HTTPException(404)
    return FileResponse(path, filename=name)


@router.get("/export/files.zip")
def files_zip() -> StreamingResponse:
    """All files; stored, so that the size is known before."""
    archive = ZipStream(sized=True)
    for path in sorted(FILES.iterdir()):
        if path.is_file() and not path.is_symlink():
            archive.add_path(path)
    headers = {
        "Content-Disposition": 'attachment; filename="files.zip"',
        "Content-Length": str(len(archive)),
    }
    return StreamingResponse(archive, media_type="application/zip", headers=headers)
