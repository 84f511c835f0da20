;; The products that take nearly all of the time of a step, and functions of vectors, four or eight
;; numbers at a time.
;;
;; Addresses are in bytes. Rows, columns and the lengths of vectors in products are multiples of 8:
;; the caller pads with zeros. $bytes is the size of a row.
(module
  (import "page" "memory" (memory 1))

  ;; y += W x: y[r] += W[r][0] x[0] + W[r][1] x[1] + ...
  (func (export "add_product")
    (param $W i32) (param $x i32) (param $y i32) (param $rows i32) (param $bytes i32)
    (local $end i32) (local $c i32) (local $v v128)
    (local $W1 i32) (local $W2 i32) (local $W3 i32)
    (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
    (local.set $end (i32.add (local.get $y) (i32.shl (local.get $rows) (i32.const 2))))
    (block $done
      (loop $next_rows ;; four rows of W
        (br_if $done (i32.ge_u (local.get $y) (local.get $end)))
        (local.set $W1 (i32.add (local.get $W) (local.get $bytes)))
        (local.set $W2 (i32.add (local.get $W1) (local.get $bytes)))
        (local.set $W3 (i32.add (local.get $W2) (local.get $bytes)))
        (local.set $s0 (f32x4.splat (f32.const 0)))
        (local.set $s1 (f32x4.splat (f32.const 0)))
        (local.set $s2 (f32x4.splat (f32.const 0)))
        (local.set $s3 (f32x4.splat (f32.const 0)))
        (local.set $c (i32.const 0))
        (loop $next_columns ;; four columns
          (local.set $v (v128.load (i32.add (local.get $x) (local.get $c))))
          (local.set $s0 (f32x4.add (local.get $s0) (f32x4.mul (local.get $v)
            (v128.load (i32.add (local.get $W) (local.get $c))))))
          (local.set $s1 (f32x4.add (local.get $s1) (f32x4.mul (local.get $v)
            (v128.load (i32.add (local.get $W1) (local.get $c))))))
          (local.set $s2 (f32x4.add (local.get $s2) (f32x4.mul (local.get $v)
            (v128.load (i32.add (local.get $W2) (local.get $c))))))
          (local.set $s3 (f32x4.add (local.get $s3) (f32x4.mul (local.get $v)
            (v128.load (i32.add (local.get $W3) (local.get $c))))))
          (local.set $c (i32.add (local.get $c) (i32.const 16)))
          (br_if $next_columns (i32.lt_u (local.get $c) (local.get $bytes))))
        (v128.store (local.get $y) (f32x4.add (v128.load (local.get $y))
          (call $totals (local.get $s0) (local.get $s1) (local.get $s2) (local.get $s3))))
        (local.set $W (i32.add (local.get $W3) (local.get $bytes)))
        (local.set $y (i32.add (local.get $y) (i32.const 16)))
        (br $next_rows))))

  ;; y += W x, with W integers of 8 bits times a scale for each row, and x as "split" writes it. The
  ;; products of integers and their sums are exact.
  (func (export "add_product8")
    (param $W i32) (param $scales i32) (param $x i32) (param $unit f32)
    (param $y i32) (param $rows i32) (param $bytes i32)
    (local $end i32) (local $c i32) (local $W1 i32)
    (local $high v128) (local $low v128) (local $w v128)
    (local $high0 v128) (local $low0 v128) (local $high1 v128) (local $low1 v128)
    (local.set $end (i32.add (local.get $y) (i32.shl (local.get $rows) (i32.const 2))))
    (block $done
      (loop $next_rows ;; two rows of W
        (br_if $done (i32.ge_u (local.get $y) (local.get $end)))
        (local.set $W1 (i32.add (local.get $W) (local.get $bytes)))
        (local.set $high0 (i32x4.splat (i32.const 0)))
        (local.set $low0 (i32x4.splat (i32.const 0)))
        (local.set $high1 (i32x4.splat (i32.const 0)))
        (local.set $low1 (i32x4.splat (i32.const 0)))
        (local.set $c (i32.const 0))
        (loop $next_columns ;; eight columns; the dot product adds their products in pairs
          (local.set $high (v128.load
            (i32.add (local.get $x) (i32.shl (local.get $c) (i32.const 2)))))
          (local.set $low (v128.load offset=16
            (i32.add (local.get $x) (i32.shl (local.get $c) (i32.const 2)))))
          (local.set $w (v128.load8x8_s (i32.add (local.get $W) (local.get $c))))
          (local.set $high0
            (i32x4.add (local.get $high0) (i32x4.dot_i16x8_s (local.get $w) (local.get $high))))
          (local.set $low0
            (i32x4.add (local.get $low0) (i32x4.dot_i16x8_s (local.get $w) (local.get $low))))
          (local.set $w (v128.load8x8_s (i32.add (local.get $W1) (local.get $c))))
          (local.set $high1
            (i32x4.add (local.get $high1) (i32x4.dot_i16x8_s (local.get $w) (local.get $high))))
          (local.set $low1
            (i32x4.add (local.get $low1) (i32x4.dot_i16x8_s (local.get $w) (local.get $low))))
          (local.set $c (i32.add (local.get $c) (i32.const 8)))
          (br_if $next_columns (i32.lt_u (local.get $c) (local.get $bytes))))
        (f32.store (local.get $y) (f32.add (f32.load (local.get $y))
          (f32.mul (f32.mul (local.get $unit) (f32.load (local.get $scales)))
            (call $join (local.get $high0) (local.get $low0)))))
        (f32.store offset=4 (local.get $y) (f32.add (f32.load offset=4 (local.get $y))
          (f32.mul (f32.mul (local.get $unit) (f32.load offset=4 (local.get $scales)))
            (call $join (local.get $high1) (local.get $low1)))))
        (local.set $W (i32.add (local.get $W1) (local.get $bytes)))
        (local.set $scales (i32.add (local.get $scales) (i32.const 8)))
        (local.set $y (i32.add (local.get $y) (i32.const 8)))
        (br $next_rows))))

  ;; The sum of high + low / 2^13
  (func $join (param $high v128) (param $low v128) (result f32)
    (call $total (f32x4.add (f32x4.convert_i32x4_s (local.get $high))
      (f32x4.mul (f32x4.convert_i32x4_s (local.get $low))
        (f32x4.splat (f32.const 0.0001220703125))))))

  ;; y = W p, with integers: W of 8 bits, p of 16 and y of 32. The caller keeps all sums below 2^31,
  ;; so they are exact.
  (func (export "multiply8")
    (param $W i32) (param $p i32) (param $y i32) (param $rows i32) (param $bytes i32)
    (local $end i32) (local $c i32) (local $v v128)
    (local $W1 i32) (local $W2 i32) (local $W3 i32)
    (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
    (local.set $end (i32.add (local.get $y) (i32.shl (local.get $rows) (i32.const 2))))
    (block $done
      (loop $next_rows ;; four rows of W
        (br_if $done (i32.ge_u (local.get $y) (local.get $end)))
        (local.set $W1 (i32.add (local.get $W) (local.get $bytes)))
        (local.set $W2 (i32.add (local.get $W1) (local.get $bytes)))
        (local.set $W3 (i32.add (local.get $W2) (local.get $bytes)))
        (local.set $s0 (i32x4.splat (i32.const 0)))
        (local.set $s1 (i32x4.splat (i32.const 0)))
        (local.set $s2 (i32x4.splat (i32.const 0)))
        (local.set $s3 (i32x4.splat (i32.const 0)))
        (local.set $c (i32.const 0))
        (loop $next_columns ;; eight columns; the dot product adds their products in pairs
          (local.set $v (v128.load (i32.add (local.get $p) (i32.shl (local.get $c) (i32.const 1)))))
          (local.set $s0 (i32x4.add (local.get $s0) (i32x4.dot_i16x8_s (local.get $v)
            (v128.load8x8_s (i32.add (local.get $W) (local.get $c))))))
          (local.set $s1 (i32x4.add (local.get $s1) (i32x4.dot_i16x8_s (local.get $v)
            (v128.load8x8_s (i32.add (local.get $W1) (local.get $c))))))
          (local.set $s2 (i32x4.add (local.get $s2) (i32x4.dot_i16x8_s (local.get $v)
            (v128.load8x8_s (i32.add (local.get $W2) (local.get $c))))))
          (local.set $s3 (i32x4.add (local.get $s3) (i32x4.dot_i16x8_s (local.get $v)
            (v128.load8x8_s (i32.add (local.get $W3) (local.get $c))))))
          (local.set $c (i32.add (local.get $c) (i32.const 8)))
          (br_if $next_columns (i32.lt_u (local.get $c) (local.get $bytes))))
        (i32.store (local.get $y) (call $sum (local.get $s0)))
        (i32.store offset=4 (local.get $y) (call $sum (local.get $s1)))
        (i32.store offset=8 (local.get $y) (call $sum (local.get $s2)))
        (i32.store offset=12 (local.get $y) (call $sum (local.get $s3)))
        (local.set $W (i32.add (local.get $W3) (local.get $bytes)))
        (local.set $y (i32.add (local.get $y) (i32.const 16)))
        (br $next_rows))))

  ;; y += w r, with integers: y of 32 bits, and a row r of 8 bits.
  (func (export "add_multiple8") (param $w i32) (param $r i32) (param $y i32) (param $bytes i32)
    (local $end i32) (local $v v128) (local $factor v128)
    (local.set $factor (i32x4.splat (local.get $w)))
    (local.set $end (i32.add (local.get $r) (local.get $bytes)))
    (loop $next_eight
      (local.set $v (v128.load8x8_s (local.get $r)))
      (v128.store (local.get $y) (i32x4.add (v128.load (local.get $y))
        (i32x4.mul (local.get $factor) (i32x4.extend_low_i16x8_s (local.get $v)))))
      (v128.store offset=16 (local.get $y) (i32x4.add (v128.load offset=16 (local.get $y))
        (i32x4.mul (local.get $factor) (i32x4.extend_high_i16x8_s (local.get $v)))))
      (local.set $y (i32.add (local.get $y) (i32.const 32)))
      (local.set $r (i32.add (local.get $r) (i32.const 8)))
      (br_if $next_eight (i32.lt_u (local.get $r) (local.get $end)))))

  (func $sum (param $s v128) (result i32)
    (i32.add
      (i32.add (i32x4.extract_lane 0 (local.get $s)) (i32x4.extract_lane 1 (local.get $s)))
      (i32.add (i32x4.extract_lane 2 (local.get $s)) (i32x4.extract_lane 3 (local.get $s)))))

  ;; Writes x for add_product8 as unit (high + low / 2^13), with integers of 16 bits: eight high
  ;; ones, up to $largest, then their low ones, and so on. Returns the unit. An error of at most
  ;; unit / 2^14 remains: 2^-29 of the largest number in x.
  (func (export "split")
    (param $x i32) (param $integers i32) (param $count i32) (param $largest f32) (result f32)
    (local $next i32) (local $end i32) (local $unit f32)
    (local $u v128) (local $v v128) (local $w v128)
    (local.set $end (i32.add (local.get $x) (i32.shl (local.get $count) (i32.const 2))))
    (local.set $next (local.get $x))
    (loop $find_largest
      (local.set $v (f32x4.max (local.get $v) (f32x4.abs (v128.load (local.get $next)))))
      (local.set $next (i32.add (local.get $next) (i32.const 16)))
      (br_if $find_largest (i32.lt_u (local.get $next) (local.get $end))))
    (local.set $unit (f32.div
      (f32.max
        (f32.max (f32x4.extract_lane 0 (local.get $v)) (f32x4.extract_lane 1 (local.get $v)))
        (f32.max (f32x4.extract_lane 2 (local.get $v)) (f32x4.extract_lane 3 (local.get $v))))
      (local.get $largest)))
    (local.set $u (f32x4.splat (local.get $unit)))
    (loop $next_eight
      (local.set $v (f32x4.div (v128.load (local.get $x)) (local.get $u)))
      (local.set $w (f32x4.div (v128.load offset=16 (local.get $x)) (local.get $u)))
      (v128.store (local.get $integers) (i16x8.narrow_i32x4_s
        (call $integer (local.get $v))
        (call $integer (local.get $w))))
      (v128.store offset=16 (local.get $integers) (i16x8.narrow_i32x4_s
        (call $integer (call $rest (local.get $v)))
        (call $integer (call $rest (local.get $w)))))
      (local.set $integers (i32.add (local.get $integers) (i32.const 32)))
      (local.set $x (i32.add (local.get $x) (i32.const 32)))
      (br_if $next_eight (i32.lt_u (local.get $x) (local.get $end))))
    (local.get $unit))

  ;; The nearest integer; 0 if x is 0 / 0
  (func $integer (param $x v128) (result v128)
    (i32x4.trunc_sat_f32x4_s (f32x4.nearest (local.get $x))))

  ;; 2^13 (x - the nearest integer)
  (func $rest (param $x v128) (result v128)
    (f32x4.mul
      (f32x4.sub (local.get $x) (f32x4.nearest (local.get $x)))
      (f32x4.splat (f32.const 8192))))

  ;; y += p M: y[c] += p[0] M[0][c] + p[1] M[1][c] + ...
  (func (export "add_mix")
    (param $p i32) (param $M i32) (param $y i32) (param $rows i32) (param $bytes i32)
    (local $end i32) (local $c i32)
    (local $M1 i32) (local $M2 i32) (local $M3 i32)
    (local $p0 v128) (local $p1 v128) (local $p2 v128) (local $p3 v128)
    (local.set $end (i32.add (local.get $p) (i32.shl (local.get $rows) (i32.const 2))))
    (block $done
      (loop $next_rows ;; four rows of M
        (br_if $done (i32.ge_u (local.get $p) (local.get $end)))
        (local.set $M1 (i32.add (local.get $M) (local.get $bytes)))
        (local.set $M2 (i32.add (local.get $M1) (local.get $bytes)))
        (local.set $M3 (i32.add (local.get $M2) (local.get $bytes)))
        (local.set $p0 (v128.load32_splat (local.get $p)))
        (local.set $p1 (v128.load32_splat offset=4 (local.get $p)))
        (local.set $p2 (v128.load32_splat offset=8 (local.get $p)))
        (local.set $p3 (v128.load32_splat offset=12 (local.get $p)))
        (local.set $c (i32.const 0))
        (loop $next_columns
          (v128.store (i32.add (local.get $y) (local.get $c))
            (f32x4.add (v128.load (i32.add (local.get $y) (local.get $c)))
              (f32x4.add
                (f32x4.add
                  (f32x4.mul (local.get $p0) (v128.load (i32.add (local.get $M) (local.get $c))))
                  (f32x4.mul (local.get $p1) (v128.load (i32.add (local.get $M1) (local.get $c)))))
                (f32x4.add
                  (f32x4.mul (local.get $p2) (v128.load (i32.add (local.get $M2) (local.get $c))))
                  (f32x4.mul (local.get $p3)
                    (v128.load (i32.add (local.get $M3) (local.get $c))))))))
          (local.set $c (i32.add (local.get $c) (i32.const 16)))
          (br_if $next_columns (i32.lt_u (local.get $c) (local.get $bytes))))
        (local.set $M (i32.add (local.get $M3) (local.get $bytes)))
        (local.set $p (i32.add (local.get $p) (i32.const 16)))
        (br $next_rows))))

  ;; Functions of vectors, in place. $count is a multiple of 4.
  (func (export "exp") (param $x i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $x) (i32.shl (local.get $count) (i32.const 2))))
    (loop $next
      (v128.store (local.get $x) (call $exp (v128.load (local.get $x))))
      (local.set $x (i32.add (local.get $x) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $x) (local.get $end)))))

  (func (export "sigmoid") (param $x i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $x) (i32.shl (local.get $count) (i32.const 2))))
    (loop $next
      (v128.store (local.get $x) (call $sigmoid (v128.load (local.get $x))))
      (local.set $x (i32.add (local.get $x) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $x) (local.get $end)))))

  (func (export "tanh") (param $x i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $x) (i32.shl (local.get $count) (i32.const 2))))
    (loop $next
      (v128.store (local.get $x) (call $tanh (v128.load (local.get $x))))
      (local.set $x (i32.add (local.get $x) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $x) (local.get $end)))))

  (func (export "gelu") (param $x i32) (param $count i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $x) (i32.shl (local.get $count) (i32.const 2))))
    (loop $next
      (v128.store (local.get $x) (call $gelu (v128.load (local.get $x))))
      (local.set $x (i32.add (local.get $x) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $x) (local.get $end)))))

  ;; e^x = 2^n e^r, with n = x / ln 2 rounded and r = x - n ln 2. Below -64 it is 0, above 64 e^64.
  (func $exp (param $x v128) (result v128)
    (local $n v128) (local $r v128) (local $s v128)
    (local.set $x (f32x4.min (local.get $x) (f32x4.splat (f32.const 64))))
    (local.set $n (f32x4.nearest
      (f32x4.mul (local.get $x) (f32x4.splat (f32.const 1.4426950408889634)))))
    (local.set $r (f32x4.sub (local.get $x)
      (f32x4.mul (local.get $n) (f32x4.splat (f32.const 0.6931471805599453)))))
    ;; e^r = 1 + r (1 + r (1/2 + r (1/6 + r (1/24 + r (1/120 + r / 720)))))
    (local.set $s (f32x4.splat (f32.const 0.001388888888888889)))
    (local.set $s (f32x4.add (f32x4.mul (local.get $s) (local.get $r))
      (f32x4.splat (f32.const 0.008333333333333333))))
    (local.set $s (f32x4.add (f32x4.mul (local.get $s) (local.get $r))
      (f32x4.splat (f32.const 0.041666666666666664))))
    (local.set $s (f32x4.add (f32x4.mul (local.get $s) (local.get $r))
      (f32x4.splat (f32.const 0.16666666666666666))))
    (local.set $s (f32x4.add (f32x4.mul (local.get $s) (local.get $r))
      (f32x4.splat (f32.const 0.5))))
    (local.set $s (f32x4.add (f32x4.mul (local.get $s) (local.get $r))
      (f32x4.splat (f32.const 1))))
    (local.set $s (f32x4.add (f32x4.mul (local.get $s) (local.get $r))
      (f32x4.splat (f32.const 1))))
    ;; The bits of a float from bit 23 on are its exponent plus 127: those of 2^n are n + 127.
    (v128.and (f32x4.gt (local.get $x) (f32x4.splat (f32.const -64)))
      (f32x4.mul (local.get $s)
        (i32x4.shl
          (i32x4.add (i32x4.trunc_sat_f32x4_s (local.get $n)) (i32x4.splat (i32.const 127)))
          (i32.const 23)))))

  ;; 1 / (1 + e^-x)
  (func $sigmoid (param $x v128) (result v128)
    (f32x4.div (f32x4.splat (f32.const 1))
      (f32x4.add (f32x4.splat (f32.const 1)) (call $exp (f32x4.neg (local.get $x))))))

  ;; 2 sigmoid(2 x) - 1
  (func $tanh (param $x v128) (result v128)
    (local.set $x (call $sigmoid (f32x4.add (local.get $x) (local.get $x))))
    (f32x4.sub (f32x4.add (local.get $x) (local.get $x)) (f32x4.splat (f32.const 1))))

  ;; x sigmoid(1.702 x)
  (func $gelu (param $x v128) (result v128)
    (f32x4.mul (local.get $x)
      (call $sigmoid (f32x4.mul (local.get $x) (f32x4.splat (f32.const 1.702))))))

  ;; Returns the sum of each of four vectors.
  (func $totals
    (param $s0 v128) (param $s1 v128) (param $s2 v128) (param $s3 v128) (result v128)
    (f32x4.replace_lane 3
      (f32x4.replace_lane 2
        (f32x4.replace_lane 1
          (f32x4.splat (call $total (local.get $s0)))
          (call $total (local.get $s1)))
        (call $total (local.get $s2)))
      (call $total (local.get $s3))))

  (func $total (param $s v128) (result f32)
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $s)) (f32x4.extract_lane 1 (local.get $s)))
      (f32.add (f32x4.extract_lane 2 (local.get $s)) (f32x4.extract_lane 3 (local.get $s))))))
