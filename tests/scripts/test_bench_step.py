"""The benchmark's book-keeping: which part an operation is counted to."""

import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).parents[2] / "scripts" / "bench_step.py"
spec = importlib.util.spec_from_file_location("bench_step", PATH)
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("while/body/jvp(guides)/vmap(FaceMotion)/encoding/ffi_call fg3dgs_encode_fwd", "guides"),
        ("jvp(vmap(losses))/lpips/cond/branch_1_fun/AlexNetTaps/Conv_1/dot_general", "lpips"),
        ("jvp(vmap())/ffi_call fg3dgs_rasterize_fwd", "rasterizer forward"),
        ("transpose(jvp(vmap()))/ffi_call fg3dgs_project_bwd", "rasterizer backward"),
        ("transpose(jvp(vmap(FaceMotion)))/encoding/ffi_call", "encoding backward"),
        ("jvp(vmap(FaceMotion))/motion/dot_general", "motion nets forward"),
        ("jvp(vmap(losses))/ffi_call fg3dgs_ssim", "ssim"),
        ("while/body/optimizer/mul", "optimizer"),
        ("while/body/batch_preparation/gather", "batch"),
        ("while/body/add", "other"),
    ],
)
def test_parts(name, part):
    assert bench.part_of(name) == part


def test_operations_of_a_program():
    text = """
  %fusion.1 = f32[8,3]{1,0} fusion(%a), kind=kLoop, metadata={op_name="jit(f)/optimizer/mul"}
  ROOT %call.2 = (f32[2]{0}, s32[]) custom-call(%a), custom_call_target="fg3dgs_encode_bwd"
  %while.3 = (s32[], f32[2]{0}) while(%t), condition=%c, body=%b, metadata={op_name="jit(f)/while"}
"""
    found = bench.parts_by_operation(text)
    assert found == {"fusion.1": "optimizer", "call.2": "encoding backward"}
