// Complex numbers as two real ones, laid out as NumPy's; no alignment beyond that of a real number.
#include "types.cuh"

template <class T>
struct gj_complex {
    T re, im;
};
typedef gj_complex<float> gj_complex64;
typedef gj_complex<double> gj_complex128;
#ifdef GJ_SHIM
namespace gj { GJ_CODE(gj_complex64, "c8") GJ_CODE(gj_complex128, "c16") }
#endif

template <class T> GJ_DEVICE gj_complex<T> operator+(gj_complex<T> x, gj_complex<T> y) {
    return {x.re + y.re, x.im + y.im};
}
template <class T> GJ_DEVICE gj_complex<T> operator-(gj_complex<T> x, gj_complex<T> y) {
    return {x.re - y.re, x.im - y.im};
}
template <class T> GJ_DEVICE gj_complex<T> operator-(gj_complex<T> x) { return {-x.re, -x.im}; }
template <class T> GJ_DEVICE gj_complex<T> operator*(gj_complex<T> x, gj_complex<T> y) {
    return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
template <class T> GJ_DEVICE gj_complex<T> operator*(T x, gj_complex<T> y) { return {x * y.re, x * y.im}; }
template <class T> GJ_DEVICE gj_complex<T> operator*(gj_complex<T> x, T y) { return {x.re * y, x.im * y}; }
template <class T> GJ_DEVICE gj_complex<T> operator/(gj_complex<T> x, T y) { return {x.re / y, x.im / y}; }
// Smith's division, as NumPy does it: neither denominator is squared, so none overflows early.
template <class T> GJ_DEVICE gj_complex<T> operator/(gj_complex<T> x, gj_complex<T> y) {
    T a = y.re < 0 ? -y.re : y.re, b = y.im < 0 ? -y.im : y.im;
    if (a == 0 && b == 0) return {x.re / a, x.im / a};
    if (a >= b) {
        T ratio = y.im / y.re, scale = 1 / (y.re + y.im * ratio);
        return {(x.re + x.im * ratio) * scale, (x.im - x.re * ratio) * scale};
    }
    T ratio = y.re / y.im, scale = 1 / (y.im + y.re * ratio);
    return {(x.re * ratio + x.im) * scale, (x.im * ratio - x.re) * scale};
}
template <class T> GJ_DEVICE gj_complex<T>& operator+=(gj_complex<T>& x, gj_complex<T> y) { return x = x + y; }
template <class T> GJ_DEVICE gj_complex<T>& operator-=(gj_complex<T>& x, gj_complex<T> y) { return x = x - y; }
template <class T> GJ_DEVICE gj_complex<T>& operator*=(gj_complex<T>& x, gj_complex<T> y) { return x = x * y; }
template <class T> GJ_DEVICE bool operator==(gj_complex<T> x, gj_complex<T> y) {
    return x.re == y.re && x.im == y.im;
}
template <class T> GJ_DEVICE bool operator!=(gj_complex<T> x, gj_complex<T> y) { return !(x == y); }

// The same names for real and complex numbers, so that one text serves all dtypes.
template <class T> GJ_DEVICE gj_complex<T> gj_conj(gj_complex<T> x) { return {x.re, -x.im}; }
GJ_DEVICE float gj_conj(float x) { return x; }
GJ_DEVICE double gj_conj(double x) { return x; }
template <class T> GJ_DEVICE bool gj_is_zero(gj_complex<T> x) { return x.re == 0 && x.im == 0; }
GJ_DEVICE bool gj_is_zero(float x) { return x == 0; }
GJ_DEVICE bool gj_is_zero(double x) { return x == 0; }
template <class T> GJ_DEVICE T gj_real(gj_complex<T> x) { return x.re; }
GJ_DEVICE float gj_real(float x) { return x; }
GJ_DEVICE double gj_real(double x) { return x; }
