"""LayerNormalization in plain operators, as torch.onnx, tf2onnx and others write it.

`#` is a prefix for names; X, S and B are what is normalized, the scale and the bias. `axes` is the axis as an input,
`two`, `eps` and `fifteen` are numbers.
"""

from __future__ import annotations

_DEVIATION = "#a = ReduceMean<keepdims=1>(X, axes) #d = Sub(X, #a)"
_ROOT = "#m = ReduceMean<keepdims=1>(#p, axes) #e = Add(#m, eps) #r = Sqrt(#e)"
_SCALED = "#t = Mul(#q, S) # = Add(#t, B)"
WRITTEN_OUT = {
    "Pow and Div": f"{_DEVIATION} #p = Pow(#d, two) {_ROOT} #q = Div(#d, #r) {_SCALED}",
    "no bias": f"{_DEVIATION} #p = Pow(#d, two) {_ROOT} #q = Div(#d, #r) # = Mul(#q, S)",
    "Mul of itself and Reciprocal": f"""{_DEVIATION} #p = Mul(#d, #d) {_ROOT} #i = Reciprocal(#r) #q = Mul(#d, #i)
        #t = Mul(S, #q) # = Add(B, #t)""",
    "Sub twice": f"{_DEVIATION} #p = Pow(#d, two) {_ROOT} #f = Sub(X, #a) #q = Div(#f, #r) {_SCALED}",
    "Cast": f"""#x = Cast<to=11>(X) #a = ReduceMean<keepdims=1>(#x, axes) #d = Sub(#x, #a) #p = Mul(#d, #d)
        #h = ReduceMean<keepdims=1>(#p, axes) #m = Cast<to=1>(#h) #e = Add(#m, eps) #r = Sqrt(#e) #k = Cast<to=1>(#d)
        #q = Div(#k, #r) {_SCALED}""",
    "a Cast before the scale": f"""#x = Cast<to=11>(X) #a = ReduceMean<keepdims=1>(#x, axes) #d = Sub(#x, #a)
        #p = Mul(#d, #d) #m = ReduceMean<keepdims=1>(#p, axes) #r = Sqrt(#m) #u = Div(#d, #r) #q = Cast<to=1>(#u)
        {_SCALED}""",
    "tf2onnx": f"""{_DEVIATION} #p = Mul(#d, #d) {_ROOT} #i = Reciprocal(#r) #j = Mul(#i, S) #q = Mul(X, #j)
        #n = Mul(#a, #j) #t = Sub(B, #n) # = Add(#q, #t)""",
    "tf2onnx's pools": """#a = GlobalAveragePool(X) #g = Neg(#a) #d = Sub(X, #a) #p = Mul(#d, #d)
        #m = GlobalAveragePool(#p) #e = Add(#m, eps) #r = Sqrt(#e) #i = Reciprocal(#r) #j = Mul(#i, S) #q = Mul(X, #j)
        #n = Mul(#g, #j) #t = Add(#n, B) # = Add(#q, #t)""",
    "variance of one less": f"""{_DEVIATION} #p = ReduceSumSquare<keepdims=1>(#d, axes) #m = Div(#p, fifteen)
        #e = Add(#m, eps) #r = Sqrt(#e) #q = Div(#d, #r) {_SCALED}""",
    "mean absolute deviation": f"""{_DEVIATION} #p = Abs(#d) #m = ReduceMean<keepdims=1>(#p, axes) #e = Add(#m, eps)
        #q = Div(#d, #e) {_SCALED}""",
}


def written_out(spelling: str, y: str, x: str, scale: str, bias: str, axes: str = "axes") -> str:
    """The nodes that normalize `x` to `y`, in ONNX's text syntax."""
    text = WRITTEN_OUT[spelling].replace("X", x).replace("B)", f"{bias})").replace("(B", f"({bias}")
    text = text.replace("S)", f"{scale})").replace("(S", f"({scale}").replace("#", y)
    if not axes.isidentifier():
        return text.replace("<keepdims=1>", f"<axes={axes}, keepdims=1>").replace(", axes)", ")")
    return text.replace("axes)", f"{axes})")
