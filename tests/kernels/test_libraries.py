"""Functions of other packages' libraries, made known to machine code."""

from numcodecs import lz4

from wkdask.kernels.libraries import link


def test_functions_that_a_library_shows():
    assert link(lz4.__file__, "LZ4_compress_default", "LZ4_decompress_safe")


def test_functions_that_it_does_not_show():
    assert not link(lz4.__file__, "LZ4_compress_default", "LZ4_no_such_function")


def test_what_is_no_library(tmp_path):
    path = tmp_path / "text.so"
    path.write_text("no library")
    assert not link(str(path), "LZ4_compress_default")
    assert not link(str(tmp_path / "missing.so"), "LZ4_compress_default")
