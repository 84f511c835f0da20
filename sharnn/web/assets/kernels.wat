;; The products that take nearly all of the time of a step, four or eight numbers at a time.
;;
;; Addresses are in bytes. Rows, columns and the lengths of vectors are multiples of 8: the caller
;; pads with zeros. $bytes is the size of a row.
(module
  (import "page" "memory" (memory 1))

  ;; y = W x: y[r] = W[r][0] x[0] + W[r][1] x[1] + ...
  (func (export "multiply")
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
        ;; Each sum has four parts, one for each column modulo 4.
        (f32.store (local.get $y) (call $total (local.get $s0)))
        (f32.store offset=4 (local.get $y) (call $total (local.get $s1)))
        (f32.store offset=8 (local.get $y) (call $total (local.get $s2)))
        (f32.store offset=12 (local.get $y) (call $total (local.get $s3)))
        (local.set $W (i32.add (local.get $W3) (local.get $bytes)))
        (local.set $y (i32.add (local.get $y) (i32.const 16)))
        (br $next_rows))))

  ;; The same for a matrix of 8-bit integers, without its scales. x has four bytes for each of W's.
  (func (export "multiply8")
    (param $W i32) (param $x i32) (param $y i32) (param $rows i32) (param $bytes i32)
    (local $end i32) (local $c i32) (local $x0 v128) (local $x1 v128) (local $w v128)
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
        (loop $next_columns ;; eight columns
          (local.set $x0 (v128.load (i32.add (local.get $x) (i32.shl (local.get $c) (i32.const 2)))))
          (local.set $x1 (v128.load offset=16
            (i32.add (local.get $x) (i32.shl (local.get $c) (i32.const 2)))))
          (local.set $w (v128.load8x8_s (i32.add (local.get $W) (local.get $c)))) ;; 8 of 16 bits
          (local.set $s0 (f32x4.add (local.get $s0) (f32x4.add
            (f32x4.mul (local.get $x0)
              (f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s (local.get $w))))
            (f32x4.mul (local.get $x1)
              (f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s (local.get $w)))))))
          (local.set $w (v128.load8x8_s (i32.add (local.get $W1) (local.get $c)))) ;; 8 of 16 bits
          (local.set $s1 (f32x4.add (local.get $s1) (f32x4.add
            (f32x4.mul (local.get $x0)
              (f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s (local.get $w))))
            (f32x4.mul (local.get $x1)
              (f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s (local.get $w)))))))
          (local.set $w (v128.load8x8_s (i32.add (local.get $W2) (local.get $c)))) ;; 8 of 16 bits
          (local.set $s2 (f32x4.add (local.get $s2) (f32x4.add
            (f32x4.mul (local.get $x0)
              (f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s (local.get $w))))
            (f32x4.mul (local.get $x1)
              (f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s (local.get $w)))))))
          (local.set $w (v128.load8x8_s (i32.add (local.get $W3) (local.get $c)))) ;; 8 of 16 bits
          (local.set $s3 (f32x4.add (local.get $s3) (f32x4.add
            (f32x4.mul (local.get $x0)
              (f32x4.convert_i32x4_s (i32x4.extend_low_i16x8_s (local.get $w))))
            (f32x4.mul (local.get $x1)
              (f32x4.convert_i32x4_s (i32x4.extend_high_i16x8_s (local.get $w)))))))
          (local.set $c (i32.add (local.get $c) (i32.const 8)))
          (br_if $next_columns (i32.lt_u (local.get $c) (local.get $bytes))))
        (f32.store (local.get $y) (call $total (local.get $s0)))
        (f32.store offset=4 (local.get $y) (call $total (local.get $s1)))
        (f32.store offset=8 (local.get $y) (call $total (local.get $s2)))
        (f32.store offset=12 (local.get $y) (call $total (local.get $s3)))
        (local.set $W (i32.add (local.get $W3) (local.get $bytes)))
        (local.set $y (i32.add (local.get $y) (i32.const 16)))
        (br $next_rows))))

  ;; y = p M: y[c] = p[0] M[0][c] + p[1] M[1][c] + ...
  (func (export "mix")
    (param $p i32) (param $M i32) (param $y i32) (param $rows i32) (param $bytes i32)
    (local $end i32) (local $c i32)
    (local $M1 i32) (local $M2 i32) (local $M3 i32)
    (local $p0 v128) (local $p1 v128) (local $p2 v128) (local $p3 v128)
    (local.set $c (i32.const 0))
    (loop $clear
      (v128.store (i32.add (local.get $y) (local.get $c)) (f32x4.splat (f32.const 0)))
      (local.set $c (i32.add (local.get $c) (i32.const 16)))
      (br_if $clear (i32.lt_u (local.get $c) (local.get $bytes))))
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

  (func $total (param $s v128) (result f32)
    (f32.add
      (f32.add (f32x4.extract_lane 0 (local.get $s)) (f32x4.extract_lane 1 (local.get $s)))
      (f32.add (f32x4.extract_lane 2 (local.get $s)) (f32x4.extract_lane 3 (local.get $s))))))
